#include "transport/copy_pool.h"

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
  }
  ready_.notify_one();
  return true;
}

void CopyPool::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    idle_++;
    ready_.wait(lock, [this] { return closed_ || !queue_.empty(); });
    idle_--;
    if (queue_.empty()) return;
    const Work work = queue_.front();
    queue_.pop_front();
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
