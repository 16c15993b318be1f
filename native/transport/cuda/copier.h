// One GPU's copies: a thread that launches slices and sees to their end. Several launches are under way at once, on two
// streams, so that one's end does not leave the GPU idle before the next begins. Those that are under way together go the same
// way and are timed as one: what one of them takes says nothing where they share the link. A slice whose batch waits for events of GPUs
// stays in the queue until they are over; those behind it do not wait for it.
#pragma once

#include "transport/cuda/launcher.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mooncake::cuda {

class Copier {
 public:
  using Settled = std::function<void(Slice& slice, Status status, bool verified)>;

  /** `settled` is called on the copier's thread, or by `post`, `cancel` and `close`. */
  Copier(const Gpu& gpu, Pins& pins, const Share& share, std::chrono::microseconds spin, Settled settled);
  ~Copier() { close(); }

  void post(Slice& slice);
  /** Slices of the batch that were not launched settle now; the others are over in milliseconds. */
  void cancel(Batch& batch);
  void close();

  /** Bytes queued and under way. */
  u64 load() const { return load_.load(std::memory_order_relaxed); }
  /** At which such slices were copied of late, in bytes a second; 0: none was. */
  double rate(const Slice& slice) const {
    return launcher_.ways().rate({slice.batch->verify(), false, slice.bytes, u64{slice.count} * slice.batch->repeat().count});
  }

 private:
  static constexpr std::chrono::microseconds LOOK_EVERY{10};
  static constexpr std::chrono::microseconds LOOK_SELDOM{200};
  static constexpr std::chrono::milliseconds LONG_WAIT{20};
  /** Sleeping may take that much longer than asked for: what is about to end is looked at without. */
  static constexpr std::chrono::microseconds AWAKE{60};
  /** After so long the GPU is let go idle for a moment, so that what is under way is timed and may go another way. */
  static constexpr std::chrono::milliseconds LONG_STRETCH{100};

  /** From an idle GPU to an idle one. */
  struct Stretch {
    Clock::time_point began{};
    /** The first slice's, for which the way was chosen. */
    Work work;
    Way way = Way::kernel;
    u64 bytes = 0;
    /** All went that way, and well. */
    bool alike = true;
  };

  void work();
  /** The first slice that may be launched; null: there is none, or no slot is free. With the lock held. */
  Slice* take(std::vector<std::pair<Slice*, Status>>& failed);
  void start(Slice& slice);
  void pause(std::unique_lock<std::mutex>& lock);
  void finish(Slot& slot);
  void over(Slice& slice, Status status, bool verified = false);
  Slot& oldest() { return launcher_.slots()[finished_ % Launcher::SLOTS]; }

  const Gpu& gpu_;
  const Driver& driver_;
  Launcher launcher_;
  const std::chrono::microseconds spin_;
  const Settled settled_;

  std::atomic<u64> load_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slice*> queue_;
  bool started_ = false;
  bool closed_ = false;
  std::thread thread_;

  // The thread's own.
  Status broken_;
  u64 launched_ = 0;
  u64 finished_ = 0;
  Clock::time_point progress_{};
  Clock::time_point lastEnd_{};
  Stretch stretch_;
};

}  // namespace mooncake::cuda
