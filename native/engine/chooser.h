// Which link gets a slice. Among the links that can carry it, those of the best rank count; of these it goes to the one
// that is predicted to have moved it first: (bytes under way + slice) / measured bandwidth, which counts for less where the
// bytes lie on another NUMA node than the device or, memory of another device, far from it on PCI. A link whose window is full is passed over, unless all of these together
// would have moved everything that waits before the best link with room had moved this slice: then the slice waits, so that
// a slow link does not hold up the end of a batch. A link that has settled nothing for longer than what it has takes may be
// hung: its predictions are later by as much, and it is not counted on where it is full.
//
// What a link was once says nothing of what it is: one that others were preferred to for long gets some bytes all the same, and is
// measured by them. That is so seldom that it costs a hundredth of the time.
//
// Links that take turns (Capabilities::inTurn) get one slice after the other whatever they are worth, and a full one is waited
// for: each carries as many as the next, and the slowest sets the pace. It is what others do, kept for comparison.
#pragma once

#include "transport/transport.h"

namespace mooncake {

/** A link's bandwidth from its settled slices: bytes per time in which it had something under way, so that queueing does
    not look like slowness. Busy periods too short to say anything about bandwidth are left out; long ones weigh more, and
    the first replaces the link's own guess. Not thread-safe. */
class Meter {
 public:
  explicit Meter(double prior) : bandwidth_(prior), secondsPerByte_(1 / prior) {}

  void posted(u64 bytes, Clock::time_point now);
  void settled(u64 bytes, bool moved, Clock::time_point now);

  u64 inFlight() const { return inFlight_; }
  /** Seconds for which it has been silent beyond what is under way explains; 0: it is not hung. */
  double hung(Clock::time_point now) const;
  /** Bytes per second. */
  double bandwidth() const { return bandwidth_; }
  double secondsPerByte() const { return secondsPerByte_; }
  /** Its measured bandwidth is of long ago, it has too little under way for a new sample, and with `waiting` bytes enough. */
  bool stale(Clock::time_point now, u64 waiting) const {
    return now >= staleAt_ && inFlight_ < SAMPLE_BYTES && inFlight_ + waiting >= SAMPLE_BYTES;
  }

  /** Less says nothing about bandwidth: latency and clock dominate. */
  static constexpr u64 SAMPLE_BYTES = 256 << 10;

 private:
  void sample(Clock::time_point now);
  /** It was measured, or was to be, which took so many seconds: not again soon. */
  void rest(double seconds, Clock::time_point now);

  double bandwidth_;
  /** What choosing needs for each slice and link: a division is paid for once a sample. */
  double secondsPerByte_;
  bool measured_ = false;
  u64 inFlight_ = 0;
  /** Of the sample being taken. */
  u64 moved_ = 0;
  Clock::time_point since_{};
  /** When a slice settled, or the first of some was posted. */
  Clock::time_point heard_{};
  Clock::time_point staleAt_ = Clock::time_point::max();
  /** Bytes that it got since then. */
  u64 looked_ = 0;
};

/** A link with what the engine knows of it; on cache lines of its own. */
struct alignas(64) Rail {
  Rail(std::string kind, std::unique_ptr<Link> opened)
      : transport(std::move(kind)), link(std::move(opened)), can(link->capabilities()), meter(can.bandwidth) {}

  bool hasRoom(u64 bytes) const { return meter.inFlight() == 0 || meter.inFlight() + bytes <= can.windowBytes; }

  std::string transport;
  std::unique_ptr<Link> link;
  Capabilities can;
  Meter meter;
  /** Of its last slice, counted over all links of the peer: whose was longest ago is next where links take turns. */
  u64 turn = 0;
  /** As it was last asked: once for all slices of a look at the queue. */
  LinkState state = LinkState::up;
};

enum class Verdict : u8 {
  post,
  wait,         // a link that can carry it is full or connecting
  unreachable,  // no link is left that can
};

struct Choice {
  Verdict verdict;
  Rail* rail = nullptr;
  /** It waits for a fast link although a slower one has room: to be asked again soon, the fast one may be hung. */
  bool spared = false;
};

/** `waiting`: bytes that no link has yet, this slice among them. */
Choice choose(std::vector<Rail>& rails, const Slice& slice, u64 waiting, Clock::time_point now);

}  // namespace mooncake
