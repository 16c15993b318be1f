// pread and pwrite on threads of its own: a disk that blocks must not hold up the threads that copy memory.
#include "transport/file/runner.h"
#include "transport/file/step_run.h"

#include <cerrno>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace mooncake::file {

namespace {

/** Calls under way at once. */
constexpr u32 THREADS = 4;

class ThreadRunner final : public Runner {
public:
  ThreadRunner(Jobs& jobs, BounceBuffers bounce) : jobs_(jobs), bounce_(std::move(bounce)) {}
  ~ThreadRunner() override { close(); }

  Status start() {
    try {
      for (u32 i = 0; i < THREADS; i++)
        threads_.emplace_back([this, i] { run(bounce_.at(i)); });
    } catch (const std::system_error& error) {
      // Fewer will do.
      if (threads_.empty()) return systemError("start a thread", error.code().value());
    }
    return {};
  }

  void wake() override {}

  void close() override {
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

private:
  void run(u8* bounce) {
    for (;;) {
      const Jobs::Taken taken = jobs_.wait();
      if (!taken.job) return;
      StepRun step(*taken.step, bounce);
      Request request;
      while (step.next(request)) {
        const ssize_t moved =
            request.write
                ? pwrite(request.fd, request.memory, request.length, static_cast<off_t>(request.offset))
                : pread(request.fd, request.memory, request.length, static_cast<off_t>(request.offset));
        step.completed(moved < 0 ? -errno : moved);
      }
      jobs_.ended(*taken.job, step.status());
    }
  }

  Jobs& jobs_;
  BounceBuffers bounce_;
  std::vector<std::thread> threads_;
};

} // namespace

Expected<std::unique_ptr<Runner>> startThreads(Jobs& jobs) {
  Expected<BounceBuffers> bounce = BounceBuffers::allocate(THREADS);
  if (!bounce.ok()) return std::move(bounce.status);
  auto runner = std::make_unique<ThreadRunner>(jobs, std::move(bounce.value));
  Status started = runner->start();
  if (!started.ok()) return started;
  return std::unique_ptr<Runner>(std::move(runner));
}

} // namespace mooncake::file
