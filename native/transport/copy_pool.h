// Threads that move bytes with the processor, or sit in system calls that block: shared by the local, shm and file
// transports, so that an engine has a few of them and not a few for each. Work is bounded by the windows of the links;
// the queue is bounded once more, and whoever finds it full does its work itself.
#pragma once

#include "engine/status.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace mooncake {

class CopyPool {
 public:
  /** No allocation per piece of work: a function, and what it is about. */
  struct Work {
    void (*run)(void* owner, void* item) = nullptr;
    void* owner = nullptr;
    void* item = nullptr;
  };

  /** Threads are made when there is first work for them. `spin`: see spinner.h. */
  explicit CopyPool(u32 threads, std::chrono::microseconds spin = {}, size_t capacity = 4096)
      : limit_(threads), spin_(spin), capacity_(capacity) {}
  ~CopyPool() { close(); }
  CopyPool(const CopyPool&) = delete;
  CopyPool& operator=(const CopyPool&) = delete;

  /** Threads that there are at most. */
  u32 threads() const { return limit_; }

  /** In order of arrival, on one of the threads. False where the queue is full or the pool closed: then nothing was queued. */
  [[nodiscard]] bool submit(Work work);

  /** Does what is queued, then joins the threads. Idempotent; not from a thread of the pool. */
  void close();

 private:
  void serve();

  const u32 limit_;
  const std::chrono::microseconds spin_;
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Work> queue_;
  /** Its length, for threads that poll. */
  std::atomic<size_t> queued_{0};
  std::vector<std::thread> threads_;
  u32 idle_ = 0;
  bool closed_ = false;
};

}  // namespace mooncake
