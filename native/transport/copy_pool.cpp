#include "transport/copy_pool.h"

#include "transport/spinner.h"

#include <system_error>

namespace mooncake {

bool CopyPool::submit(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || queue_.size() >= capacity_) return false;
    if (idle_ <= queue_.size() && threads_.size() < limit_) {
      try {
        threads_.emplace_back([this] { serve(); });
      } catch (const std::system_error&) {
        if (threads_.empty()) return false;
      }
    }
    queue_.push_back(work);
    queued_ = queue_.size();
  }
  ready_.notify_one();
  return true;
}

void CopyPool::serve() {
  Spinner spinner(spin_);
  std::unique_lock lock(mutex_);
  for (;;) {
    idle_++;
    if (queue_.empty() && !closed_) {
      lock.unlock();
      const auto sleep = [&] {
        lock.lock();
        ready_.wait(lock, [this] { return closed_ || !queue_.empty(); });
        lock.unlock();
        return true;
      };
      spinner.wait([this] { return queued_.load(std::memory_order_relaxed) > 0; }, sleep);
      lock.lock();
    }
    idle_--;
    if (queue_.empty() && closed_) return;
    if (queue_.empty()) continue;
    const Work work = queue_.front();
    queue_.pop_front();
    queued_ = queue_.size();
    lock.unlock();
    work.run(work.owner, work.item);
    lock.lock();
  }
}

void CopyPool::close() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    threads.swap(threads_);
  }
  ready_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace mooncake
