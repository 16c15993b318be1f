// Work requests for one queue pair that go to the device in one call, each linked to the next. Made once for as many as the
// queue pair takes.
#pragma once

#include "transport/rdma/verbs.h"

#include <span>
#include <vector>

namespace mooncake::rdma {

class Chain {
 public:
  explicit Chain(u32 depth) : requests_(depth), places_(depth) {}

  u32 size() const { return size_; }
  std::span<const ibv_send_wr> requests() const { return {requests_.data(), size_}; }
  ibv_send_wr& last() { return requests_[size_ - 1]; }

  /** One more, of one place; the rest of it is the caller's to fill in. */
  ibv_send_wr& add(const ibv_sge& place) {
    places_[size_] = place;
    ibv_send_wr& request = requests_[size_];
    request.next = &request + 1;
    request.sg_list = &places_[size_];
    request.num_sge = 1;
    size_++;
    return request;
  }

  /** Takes back those behind the first `size`. */
  void cut(u32 size) { size_ = size; }

  /** The first request, for the call; null where there is none. */
  ibv_send_wr* close() {
    if (size_ == 0) return nullptr;
    last().next = nullptr;
    return requests_.data();
  }

 private:
  std::vector<ibv_send_wr> requests_;
  std::vector<ibv_sge> places_;
  u32 size_ = 0;
};

}  // namespace mooncake::rdma
