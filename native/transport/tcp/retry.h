// When to try a connection again, and when no more. Times are milliseconds of the loop's clock.
#pragma once

#include "engine/status.h"

#include <algorithm>

namespace mooncake::tcp {

class Retry {
 public:
  /** `refusedMs`: how long a port may refuse connections until nobody is expected to listen there any more. */
  explicit Retry(u64 refusedMs) : refusedMs_(refusedMs) {}

  bool due(u64 now) const { return now >= at_; }

  void succeeded() {
    pause_ = FIRST_MS;
    refusedSince_ = NEVER;
  }

  /** False: there is no point in going on. */
  [[nodiscard]] bool failed(u64 now, bool refused) {
    if (!refused) refusedSince_ = NEVER;
    if (refused && refusedSince_ == NEVER) refusedSince_ = now;
    if (refused && now - refusedSince_ >= refusedMs_) return false;
    at_ = now + pause_;
    pause_ = std::min(pause_ * 2, LAST_MS);
    return true;
  }

 private:
  static constexpr u64 FIRST_MS = 50;
  static constexpr u64 LAST_MS = 2000;
  static constexpr u64 NEVER = ~u64{0};

  const u64 refusedMs_;
  u64 pause_ = FIRST_MS;
  u64 at_ = 0;
  u64 refusedSince_ = NEVER;
};

}  // namespace mooncake::tcp
