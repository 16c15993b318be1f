// One io_uring and one thread that fills and empties it. Every request of an io_uring belongs to the thread
// that submitted it (the kernel cancels them when that thread exits), so posting threads only wake this one,
// through an eventfd that the ring polls. Requests of all waiting slices are handed over together with the
// wait for the next completion.
#include "transport/file/ring.h"
#include "transport/file/runner.h"
#include "transport/file/step_run.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <poll.h>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace mooncake::file {

namespace {

/** Steps under way at once. */
constexpr u32 DEPTH = 128;
constexpr u32 BOUNCES = 16;
/** Every step and the poll of the eventfd have one submission each at most. */
constexpr u32 ENTRIES = 256;
static_assert(ENTRIES > DEPTH + 1);
constexpr u64 WAKE_UP = ~u64{0};
constexpr u32 NO_BOUNCE = ~u32{0};
constexpr u32 MOST_BYTES = 1u << 30;

class UringRunner final : public Runner {
public:
  UringRunner(Jobs& jobs, std::unique_ptr<uring::Ring> ring, BounceBuffers bounce, int wakeFd)
      : jobs_(jobs), ring_(std::move(ring)), bounce_(std::move(bounce)), wakeFd_(wakeFd) {
    for (u32 i = 0; i < DEPTH; i++)
      freeSlots_.push_back(DEPTH - 1 - i);
    for (u32 i = 0; i < BOUNCES; i++)
      freeBounces_.push_back(i);
  }

  ~UringRunner() override {
    close();
    ::close(wakeFd_);
  }

  Status start() {
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
      return systemError("start a thread", error.code().value());
    }
    return {};
  }

  void wake() override {
    const u64 one = 1;
    // Fails only where the counter is full, and then the thread is being woken anyway.
    if (::write(wakeFd_, &one, sizeof one) < 0) return;
  }

  void close() override {
    if (!thread_.joinable()) return;
    closing_.store(true, std::memory_order_release);
    wake();
    thread_.join();
  }

private:
  struct Slot {
    Job* job = nullptr;
    StepRun run;
    u32 bounce = NO_BOUNCE;
  };

  void run() {
    for (;;) {
      // Before the jobs are looked at: what is pushed later finds the poll armed.
      if (!polling_) pollWakeUps();
      begin();
      if (closing_.load(std::memory_order_acquire) && freeSlots_.size() == DEPTH) return;
      const Status entered = ring_->enter();
      if (!entered.ok()) return abandon(entered);
      reap();
    }
  }

  void reap() {
    uring::Completion completion;
    while (ring_->take(completion)) {
      if (completion.userData == WAKE_UP) {
        polling_ = false;
        continue;
      }
      const auto index = static_cast<u32>(completion.userData);
      slots_[index].run.completed(completion.result);
      advance(index);
    }
  }

  void pollWakeUps() {
    u64 count = 0;
    // Nonblocking; nothing to read is as good.
    if (::read(wakeFd_, &count, sizeof count) < 0) count = 0;
    uring::Submission& poll = ring_->prepare();
    poll.opcode = static_cast<u8>(uring::Opcode::pollAdd);
    poll.fd = wakeFd_;
    poll.operationFlags = POLLIN;
    poll.userData = WAKE_UP;
    polling_ = true;
  }

  void begin() {
    while (!freeSlots_.empty()) {
      const Jobs::Taken taken = jobs_.take(!freeBounces_.empty());
      if (!taken.job) return;
      const u32 index = freeSlots_.back();
      freeSlots_.pop_back();
      Slot& slot = slots_[index];
      slot.job = taken.job;
      slot.bounce = NO_BOUNCE;
      if (taken.step->bounce) {
        slot.bounce = freeBounces_.back();
        freeBounces_.pop_back();
      }
      slot.run = StepRun(*taken.step, slot.bounce == NO_BOUNCE ? nullptr : bounce_.at(slot.bounce));
      advance(index);
    }
  }

  /** Prepares the step's next call, or ends the step. */
  void advance(u32 index) {
    Slot& slot = slots_[index];
    Request request;
    if (slot.run.next(request)) {
      uring::Submission& submission = ring_->prepare();
      submission.opcode = static_cast<u8>(request.write ? uring::Opcode::write : uring::Opcode::read);
      submission.fd = request.fd;
      submission.offset = request.offset;
      submission.address = reinterpret_cast<std::uintptr_t>(request.memory);
      submission.length = static_cast<u32>(std::min<u64>(request.length, MOST_BYTES));
      submission.userData = index;
      return;
    }
    end(index, slot.run.status());
  }

  void end(u32 index, const Status& status) {
    Slot& slot = slots_[index];
    if (slot.bounce != NO_BOUNCE) freeBounces_.push_back(slot.bounce);
    freeSlots_.push_back(index);
    jobs_.ended(*slot.job, status);
  }

  /** The kernel refuses to go on (a seccomp filter that came later): ends when what it still has under way
   * has ended. */
  void abandon(const Status& status) {
    jobs_.stop(status);
    for (;;) {
      u64 userData = 0;
      while (ring_->withdraw(userData)) {
        if (userData != WAKE_UP) end(static_cast<u32>(userData), status);
      }
      if (freeSlots_.size() == DEPTH) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      reap();
    }
  }

  Jobs& jobs_;
  std::unique_ptr<uring::Ring> ring_;
  BounceBuffers bounce_;
  const int wakeFd_;
  std::atomic<bool> closing_{false};
  std::thread thread_;
  // Of the thread alone.
  bool polling_ = false;
  std::array<Slot, DEPTH> slots_;
  std::vector<u32> freeSlots_;
  std::vector<u32> freeBounces_;
};

} // namespace

Expected<std::unique_ptr<Runner>> startUring(Jobs& jobs) {
  Expected<std::unique_ptr<uring::Ring>> ring = uring::Ring::open(ENTRIES);
  if (!ring.ok()) return std::move(ring.status);
  Expected<BounceBuffers> bounce = BounceBuffers::allocate(BOUNCES);
  if (!bounce.ok()) return std::move(bounce.status);
  const int wakeFd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wakeFd < 0) return systemError("eventfd", errno);
  auto runner = std::make_unique<UringRunner>(jobs, std::move(ring.value), std::move(bounce.value), wakeFd);
  Status started = runner->start();
  if (!started.ok()) return started;
  return std::unique_ptr<Runner>(std::move(runner));
}

} // namespace mooncake::file
