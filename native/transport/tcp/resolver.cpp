#include "transport/tcp/resolver.h"

namespace mooncake::tcp {

void Resolver::lookUp(std::shared_ptr<Route> route, std::string host, std::string port) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  jobs_.push_back({std::move(route), std::move(host), std::move(port)});
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  wake_.notify_one();
}

void Resolver::close() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    thread.swap(thread_);
    wake_.notify_one();
  }
  if (thread.joinable()) thread.join();
}

void Resolver::work() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
      if (closed_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    Expected<std::vector<Address>> found = resolve(job.host, job.port, false);
    const std::lock_guard lock(job.route->mutex);
    job.route->addresses = std::move(found.value);
    job.route->failure = std::move(found.status);
  }
}

}  // namespace mooncake::tcp
