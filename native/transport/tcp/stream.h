// A client's connection that is made again when it breaks: connects without blocking, tries the addresses of the peer in
// turn with growing pauses, and gives up for good where nobody listens any more or the peer turns out to be another.
#pragma once

#include "transport/tcp/loop.h"

#include <mutex>

namespace mooncake::tcp {

/** Where to connect. The addresses may come later (a name is being looked up). */
struct Route {
  std::mutex mutex;
  std::vector<Address> addresses;
  /** Of the lookup, where it failed. */
  Status failure;
  /** "192.0.2.2:4711" */
  std::string place;
};

/** When to try again, and when no more. Times in ms of the loop's clock. */
class Retry {
 public:
  /** `refusedMs`: how long a port may refuse connections until nobody is expected to listen there any more. */
  explicit Retry(u64 refusedMs) : refusedMs_(refusedMs) {}

  bool due(u64 now) const { return now >= at_; }
  void succeeded() {
    pause_ = 0;
    refusedSince_ = NEVER;
  }
  /** False: it is hopeless. */
  bool failed(u64 now, bool refused) {
    if (!refused) refusedSince_ = NEVER;
    if (refused && refusedSince_ == NEVER) refusedSince_ = now;
    if (refused && now - refusedSince_ >= refusedMs_) return false;
    pause_ = pause_ == 0 ? FIRST_MS : pause_ * 2 < LAST_MS ? pause_ * 2 : LAST_MS;
    at_ = now + pause_;
    return true;
  }
  size_t turn = 0;

 private:
  static constexpr u64 FIRST_MS = 50;
  static constexpr u64 LAST_MS = 2000;
  static constexpr u64 NEVER = ~u64{0};
  const u64 refusedMs_;
  u64 pause_ = 0;
  u64 at_ = 0;
  u64 refusedSince_ = NEVER;
};

}  // namespace mooncake::tcp
