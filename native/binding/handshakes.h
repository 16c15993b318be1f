// What waits for JavaScript's answer: handshakes of peers, and those that links of ours want carried.
#pragma once

#include "engine/batch.h"

#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace mooncake::binding {

template <class Answer>
class Handshakes {
 public:
  using Reply = std::function<void(Answer)>;

  /** A number for the answer; 0 where too many wait. Those that were never answered are dropped when others come. */
  u64 add(Reply reply) {
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    while (!waiting_.empty() && now - waiting_.begin()->second.since > PATIENCE) waiting_.erase(waiting_.begin());
    if (waiting_.size() >= MOST) return 0;
    waiting_[next_] = {std::move(reply), now};
    return next_++;
  }

  /** Empty where it was answered before. */
  Reply take(u64 number) {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(number);
    if (found == waiting_.end()) return {};
    Reply reply = std::move(found->second.reply);
    waiting_.erase(found);
    return reply;
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
  }

 private:
  /** Mooncake's peers wait for 5 s. */
  static constexpr auto PATIENCE = std::chrono::seconds(10);
  /** While JavaScript is busy, peers go on asking. */
  static constexpr size_t MOST = 256;

  struct Waiting {
    Reply reply;
    Clock::time_point since;
  };

  std::mutex mutex_;
  std::map<u64, Waiting> waiting_;
  u64 next_ = 1;
};

}  // namespace mooncake::binding
