// What a path reports once its lock is free: all slices that one look at the completion queue, or one call of the engine, has
// ended. Its memory comes from a stock of the thread's, so that no slice costs an allocation; calls may be nested (the engine
// posts while it is told), and each takes one of its own.
#pragma once

#include "transport/transport.h"

#include <span>

namespace mooncake::rdma {

class Settling {
 public:
  Settling() {
    auto& spare = stock();
    if (spare.empty()) return;
    all_ = std::move(spare.back());
    spare.pop_back();
  }
  ~Settling() {
    all_.clear();
    if (stock().size() < KEPT) stock().push_back(std::move(all_));
  }
  Settling(const Settling&) = delete;
  Settling& operator=(const Settling&) = delete;

  void add(Slice* slice, Status status, bool verified = false) { all_.push_back({slice, std::move(status), verified}); }

  /** Without the lock. */
  void tell(LinkEvents& events) {
    if (!all_.empty()) events.settledAll(all_);
  }

 private:
  /** More than a thread's calls are nested. */
  static constexpr size_t KEPT = 8;

  static std::vector<std::vector<Settled>>& stock() {
    thread_local std::vector<std::vector<Settled>> spare;
    return spare;
  }

  std::vector<Settled> all_;
};

}  // namespace mooncake::rdma
