// The engine's one thread of its own: ends batches at their deadlines, and looks for links again when one changed its
// state. It sleeps until the earliest deadline that it knows of; batches that end before theirs cost it nothing.
#pragma once

#include "engine/batch.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace mooncake {

class Keeper {
 public:
  /** `visit` does what is due and says when to come again; called on the keeper's thread, without locks. */
  explicit Keeper(std::function<Clock::time_point(Clock::time_point now)> visit)
      : visit_(std::move(visit)), thread_([this] { run(); }) {}
  ~Keeper() { close(); }

  /** Come by then. From any thread. */
  void by(Clock::time_point when) {
    if (when >= Clock::time_point(Clock::duration(next_.load()))) return;
    const std::lock_guard lock(mutex_);
    if (when >= Clock::time_point(Clock::duration(next_.load()))) return;
    next_ = when.time_since_epoch().count();
    wake_.notify_one();
  }

  /** Come now. From any thread. */
  void now() {
    const std::lock_guard lock(mutex_);
    next_ = 0;
    wake_.notify_one();
  }

  /** Joins the thread. Idempotent. */
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!closed_) {
      const Clock::time_point now = Clock::now();
      const Clock::time_point next{Clock::duration(next_.load())};
      if (next > now) {
        // Not wait_until(max): its conversions overflow.
        wake_.wait_until(lock, std::min(next, now + std::chrono::hours(1)));
        continue;
      }
      // What is submitted during the visit may lower it again.
      next_ = Clock::duration::max().count();
      lock.unlock();
      const Clock::time_point again = visit_(now);
      lock.lock();
      next_ = std::min<Clock::rep>(next_, again.time_since_epoch().count());
    }
  }

  const std::function<Clock::time_point(Clock::time_point now)> visit_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<Clock::rep> next_{Clock::duration::max().count()};
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace mooncake
