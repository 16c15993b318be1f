// A thread that sleeps, on a processor that then halts, takes 15 to 25 us to wake up: more than a small request takes in all.
// So one whose work comes at short intervals polls for a while before it sleeps, and lets others have the processor between
// two looks.
#pragma once

#include <sched.h>

#include <chrono>

namespace mooncake {

/** Of one thread. */
class Spinner {
 public:
  /** How long it polls; 0: not at all. */
  explicit Spinner(std::chrono::microseconds time) : time_(time) {}

  /** Waits for work: `look` and `sleep` return whether there is some; `sleep` waits for it as long as the caller likes. */
  template <class Look, class Sleep>
  void wait(Look&& look, Sleep&& sleep) {
    using Steady = std::chrono::steady_clock;
    if (time_.count() == 0) return static_cast<void>(sleep());
    const Steady::time_point began = Steady::now();
    bool found = false;
    while (polling_ && !found) {
      found = look();
      polling_ = Steady::now() - began < time_;
      if (polling_ && !found) ::sched_yield();
    }
    if (!found) found = sleep();
    polling_ = found && Steady::now() - began < SHORT_WAIT * time_;
  }

 private:
  /** Work comes at short intervals while the last wait was shorter than so many times `time_`: where both sides of an
      exchange have slept, most of the wait was the waking. */
  static constexpr int SHORT_WAIT = 4;

  const std::chrono::microseconds time_;
  bool polling_ = false;
};

}  // namespace mooncake
