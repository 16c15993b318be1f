// A loop polls while its work comes at short intervals, and sleeps when that ends: by the processor time of its thread.
#include "test/check.h"
#include "transport/tcp/loop.h"

#include <pthread.h>

#include <ctime>
#include <thread>

using namespace mooncake;
using namespace mooncake::tcp;
using namespace std::chrono_literals;

namespace {

/** A loop with nothing to do but its tasks. */
class Bare {
 public:
  explicit Bare(std::chrono::microseconds spin) : loop(std::make_shared<Loop>(spin)) {
    REQUIRE(loop->start().ok());
    loop->runAndWait([this] { clocked_ = ::pthread_getcpuclockid(::pthread_self(), &clock_) == 0; });
    REQUIRE(clocked_);
  }

  std::chrono::nanoseconds used() const {
    timespec now{};
    REQUIRE(::clock_gettime(clock_, &now) == 0);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }
  /** Work at the shortest intervals. */
  void burst() {
    for (int i = 0; i < 20; i++) loop->runAndWait([] {});
  }

  const std::shared_ptr<Loop> loop;

 private:
  clockid_t clock_{};
  bool clocked_ = false;
};

/** What a thread that sleeps may use in a second, on a processor that is emulated, sanitized and shared. */
constexpr auto ASLEEP = 20ms;
/** More than any machine keeps a thread from running. */
constexpr int ROUNDS = 600;

}  // namespace

TEST(loop, pollsAfterABurst) {
  Bare bare(10s);
  bare.burst();
  const auto before = bare.used();
  for (int i = 0; i < ROUNDS && bare.used() - before <= ASLEEP; i++) std::this_thread::sleep_for(100ms);
  CHECK(bare.used() - before > ASLEEP);
}

TEST(loop, sleepsSoonAfterABurst) {
  Bare bare(1ms);
  bare.burst();
  // The time for which it polls has passed.
  std::this_thread::sleep_for(100ms);
  const auto before = bare.used();
  std::this_thread::sleep_for(1s);
  CHECK(bare.used() - before < ASLEEP);
  bool ran = false;
  bare.loop->runAndWait([&] { ran = true; });
  CHECK(ran);
}

TEST(loop, sleepsBetweenRareTasks) {
  Bare bare(20ms);
  // It polls after its start, when its first task came soon.
  std::this_thread::sleep_for(100ms);
  const auto before = bare.used();
  for (int i = 0; i < 5; i++) {
    std::this_thread::sleep_for(400ms);
    bare.loop->runAndWait([] {});
  }
  CHECK(bare.used() - before < ASLEEP);
}

TEST(loop, neverPollsWithoutASpinTime) {
  Bare bare(0us);
  bare.burst();
  const auto before = bare.used();
  std::this_thread::sleep_for(500ms);
  CHECK(bare.used() - before < ASLEEP);
}
