#include "engine/chooser.h"

#include <algorithm>

namespace mooncake {

namespace {

/** Less says nothing about bandwidth: latency and clock dominate. */
constexpr u64 SAMPLE_BYTES = 256 << 10;
constexpr auto SAMPLE_TIME = std::chrono::milliseconds(5);
/** A sample of that many seconds leaves nothing of what was measured before; shorter ones at least this weight. */
constexpr double FORGOTTEN = 0.02;
constexpr double LEAST_WEIGHT = 0.3;
/** Seconds without a settled slice in which no link is taken to be hung: threads are held up for as long. */
constexpr double PATIENCE = 0.02;

/** Memory of GPUs and other memory have links of their own. */
bool fits(const Rail& rail, const Slice& slice) { return rail.can.devices == (slice.devices != 0); }

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
}

void Meter::settled(u64 bytes, bool moved, Clock::time_point now) {
  inFlight_ -= bytes;
  heard_ = now;
  if (moved) moved_ += bytes;
  if (moved_ >= SAMPLE_BYTES && (inFlight_ == 0 || now - since_ >= SAMPLE_TIME)) sample(now);
}

double Meter::end(u64 bytes, Clock::time_point now) const {
  const double due = static_cast<double>(inFlight_) / bandwidth_;
  const double silent = inFlight_ == 0 ? 0 : std::chrono::duration<double>(now - heard_).count();
  return due + static_cast<double>(bytes) / bandwidth_ + std::max(0.0, silent - std::max(PATIENCE, 2 * due));
}

void Meter::sample(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - since_).count();
  if (seconds > 0) {
    const double weight = measured_ ? std::clamp(seconds / FORGOTTEN, LEAST_WEIGHT, 1.0) : 1.0;
    bandwidth_ += weight * (static_cast<double>(moved_) / seconds - bandwidth_);
    measured_ = true;
  }
  moved_ = 0;
  since_ = now;
}

Choice choose(std::vector<Rail>& rails, const Slice& slice, u64 waiting, Clock::time_point now) {
  const Op op = slice.batch->op();
  bool verify = false;
  if (slice.batch->verify()) {
    // A link that is up and does not carry such a slice says nothing of those that do.
    for (const Rail& rail : rails) {
      verify = verify || (rail.can.verify && canDo(rail.can, op) && fits(rail, slice) &&
                          (rail.link->state() != LinkState::up || rail.link->reaches(slice)));
    }
  }
  Rail* best = nullptr;
  double bestEnd = 0;
  // Of the full links of the best rank, when the first will have moved all that waits.
  bool full = false;
  double fullEnd = 0;
  bool connecting = false;
  int rank = 0;
  for (Rail& rail : rails) {
    if (!canDo(rail.can, op) || !fits(rail, slice) || (verify && !rail.can.verify)) continue;
    if ((slice.failedOn >> (rail.link->number % 64) & 1) != 0) continue;
    const LinkState state = rail.link->state();
    if (state == LinkState::down) continue;
    if (state == LinkState::connecting) {
      connecting = true;
      continue;
    }
    if (((best != nullptr || full) && rail.can.rank > rank) || !rail.link->reaches(slice)) continue;
    if ((best != nullptr || full) && rail.can.rank < rank) {
      best = nullptr;
      full = false;
    }
    rank = rail.can.rank;
    const auto end = [&](u64 bytes) { return rail.meter.end(bytes, now); };
    if (!rail.hasRoom(slice.bytes)) {
      fullEnd = full ? std::min(fullEnd, end(waiting)) : end(waiting);
      full = true;
    } else if (best == nullptr || end(slice.bytes) < bestEnd) {
      best = &rail;
      bestEnd = end(slice.bytes);
    }
  }
  if (best != nullptr && !(full && fullEnd < bestEnd)) return {Verdict::post, best};
  return {best != nullptr || full || connecting ? Verdict::wait : Verdict::unreachable, nullptr, best != nullptr};
}

}  // namespace mooncake
