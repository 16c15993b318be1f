#include "engine/chooser.h"

#include <algorithm>

namespace mooncake {

namespace {

constexpr auto SAMPLE_TIME = std::chrono::milliseconds(5);
/** A sample of that many seconds leaves nothing of what was measured before; shorter ones at least this weight. */
constexpr double FORGOTTEN = 0.02;
constexpr double LEAST_WEIGHT = 0.3;
/** A link is measured again after so many times what that takes, and so long at least. */
constexpr double SELDOM = 100;
constexpr auto FRESH = std::chrono::milliseconds(100);
constexpr std::chrono::duration<double> LONGEST = std::chrono::hours(1);
/** Seconds without a settled slice in which no link is taken to be hung: threads are held up for as long. */
constexpr auto PATIENCE = std::chrono::milliseconds(20);
/** Of its bandwidth, what a device is taken to have for memory of another NUMA node: an assumption, about what processors of two
    sockets have between them for such traffic. */
constexpr double FAR = 0.75;
/** The same for memory of a device on PCI, by how far the NIC is from it: assumptions, too. Below one switch nothing else is in
    the way; host bridges forward between their ports with less than they have for memory, and those of a node share its mesh. */
constexpr double BY_HOST_BRIDGE = 0.9;
constexpr double BY_NODE = 0.85;

/** Memory of GPUs and other memory have links of their own. */
bool fits(const Rail& rail, const Slice& slice) {
  return rail.can.devices == (slice.devices != 0) && (rail.can.unmapped || !slice.unmapped);
}

double shareFor(PciDistance distance) {
  switch (distance) {
    case PciDistance::pix:
    case PciDistance::pxb: return 1;
    case PciDistance::phb: return BY_HOST_BRIDGE;
    case PciDistance::node: return BY_NODE;
    // As if it were far: one that is known to be near goes first, and where no place is known all are alike.
    case PciDistance::sys:
    case PciDistance::unknown: return FAR;
  }
  return FAR;
}

/** Of a link's bandwidth, what it is taken to have for these bytes. */
double shareOf(const Rail& rail, const Slice& slice) {
  if (slice.place != nullptr) return shareFor(distance(*slice.place, rail.can.place));
  return slice.node >= 0 && rail.can.numaNode >= 0 && slice.node != rail.can.numaNode ? FAR : 1;
}

bool canDo(const Capabilities& can, Op op) {
  switch (op) {
    case Op::read: return can.read;
    case Op::write: return can.write;
    case Op::copy: return can.copy;
  }
  return false;
}

}  // namespace

void Meter::posted(u64 bytes, Clock::time_point now) {
  if (inFlight_ == 0) {
    moved_ = 0;
    since_ = heard_ = now;
  }
  inFlight_ += bytes;
  if (now < staleAt_) return;
  looked_ += bytes;
  // Slices that fail, or come too far apart, make no sample: no reason to prefer it until they do.
  if (looked_ >= SAMPLE_BYTES) rest(static_cast<double>(looked_) * secondsPerByte_, now);
}

void Meter::settled(u64 bytes, bool moved, Clock::time_point now) {
  inFlight_ -= bytes;
  heard_ = now;
  if (moved) moved_ += bytes;
  if (moved_ >= SAMPLE_BYTES && (inFlight_ == 0 || now - since_ >= SAMPLE_TIME)) sample(now);
}

double Meter::hung(Clock::time_point now) const {
  if (inFlight_ == 0 || now - heard_ <= PATIENCE) return 0;
  const double due = static_cast<double>(inFlight_) * secondsPerByte_;
  const double explained = std::max(std::chrono::duration<double>(PATIENCE).count(), 2 * due);
  return std::max(0.0, std::chrono::duration<double>(now - heard_).count() - explained);
}

void Meter::sample(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - since_).count();
  if (seconds > 0) {
    const double weight = measured_ ? std::clamp(seconds / FORGOTTEN, LEAST_WEIGHT, 1.0) : 1.0;
    bandwidth_ += weight * (static_cast<double>(moved_) / seconds - bandwidth_);
    secondsPerByte_ = 1 / bandwidth_;
    measured_ = true;
    rest(seconds, now);
  }
  moved_ = 0;
  since_ = now;
}

void Meter::rest(double seconds, Clock::time_point now) {
  const std::chrono::duration<double> again(SELDOM * seconds);
  staleAt_ = now + std::max<Clock::duration>(FRESH, std::chrono::duration_cast<Clock::duration>(std::min(again, LONGEST)));
  looked_ = 0;
}

Choice choose(std::vector<Rail>& rails, const Slice& slice, u64 waiting, Clock::time_point now) {
  const Op op = slice.batch->op();
  bool verify = false;
  if (slice.batch->verify()) {
    // A link that is up and does not carry such a slice says nothing of those that do.
    for (const Rail& rail : rails) {
      verify = verify || (rail.can.verify && canDo(rail.can, op) && fits(rail, slice) &&
                          (rail.state != LinkState::up || rail.link->reaches(slice)));
    }
  }
  Rail* best = nullptr;
  double bestEnd = 0;
  Rail* next = nullptr;
  Rail* stale = nullptr;
  // Of the full links of the best rank: what they have and are to have, and bytes per second of those that are not hung.
  bool full = false;
  u64 fullBytes = waiting;
  double fullBandwidth = 0;
  bool connecting = false;
  int rank = 0;
  for (Rail& rail : rails) {
    if (!canDo(rail.can, op) || !fits(rail, slice) || (verify && !rail.can.verify)) continue;
    if ((slice.failedOn >> (rail.link->number % 64) & 1) != 0) continue;
    if (rail.state == LinkState::down) continue;
    if (rail.state == LinkState::connecting) {
      connecting = true;
      continue;
    }
    const bool any = best != nullptr || next != nullptr || full;
    if ((any && rail.can.rank > rank) || !rail.link->reaches(slice)) continue;
    if (any && rail.can.rank < rank) {
      best = next = stale = nullptr;
      full = false;
      fullBytes = waiting;
      fullBandwidth = 0;
    }
    rank = rail.can.rank;
    if (rail.can.inTurn) {
      if (next == nullptr || rail.turn < next->turn) next = &rail;
      continue;
    }
    const double hung = rail.meter.hung(now);
    const double share = shareOf(rail, slice);
    if (!rail.hasRoom(slice.bytes)) {
      full = true;
      if (hung > 0) continue;
      fullBytes += rail.meter.inFlight();
      fullBandwidth += rail.meter.bandwidth() * share;
      continue;
    }
    const double seconds = static_cast<double>(rail.meter.inFlight() + slice.bytes) * rail.meter.secondsPerByte();
    const double end = (share < 1 ? seconds / share : seconds) + hung;
    if (hung == 0 && rail.meter.stale(now, waiting)) stale = &rail;
    if (best != nullptr && end >= bestEnd) continue;
    best = &rail;
    bestEnd = end;
  }
  if (next != nullptr) return next->hasRoom(slice.bytes) ? Choice{Verdict::post, next} : Choice{Verdict::wait};
  if (stale != nullptr) return {Verdict::post, stale};
  const bool spared = static_cast<double>(fullBytes) < bestEnd * fullBandwidth;
  if (best != nullptr && !spared) return {Verdict::post, best};
  return {best != nullptr || full || connecting ? Verdict::wait : Verdict::unreachable, nullptr, best != nullptr};
}

}  // namespace mooncake
