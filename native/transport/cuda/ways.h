// How a GPU's copies are made: by our kernel, which runs on multiprocessors that the inference engine may want, or by the
// GPU's copy engines, which nobody computes on but which take longer for small pieces. Neither is best everywhere: which one
// is, is measured for each kind of work as it goes by, and looked at again now and then, since it changes with what else the
// GPU has to do (a kernel beside another process's takes turns with it). The copy engines are taken where they are about as
// fast: what they do costs the engine nothing.
#pragma once

#include "engine/status.h"

#include <array>
#include <chrono>
#include <mutex>

namespace mooncake::cuda {

enum class Way : u8 { kernel, engines };

/** What decides how fast a copy is. */
struct Work {
  /** Summed on the way, which the kernel alone does. */
  bool summed = false;
  /** Host memory is a side of it. */
  bool host = false;
  u64 bytes = 0;
  u64 pieces = 1;
};

class Ways {
 public:
  /** Only ways that are allowed are chosen; at least one is. `atOnce`: kernels run beside those of other processes, by MPS, and so
      slow them down while they themselves are as fast as ever: speed does not tell what they cost. */
  Ways(bool kernel, bool engines, bool atOnce = false)
      : allowed_{kernel, engines}, aboutAsFast_(atOnce ? HALF_AS_FAST : ABOUT_AS_FAST) {}

  bool allows(Way way) const { return allowed_[static_cast<size_t>(way)]; }
  Way choose(const Work& work);
  /** How long so many bytes took by the way that was chosen for such work, from an idle GPU to an idle one. */
  void took(const Work& work, Way way, u64 bytes, double seconds);
  /** Bytes a second by the way that would be chosen; 0: not known yet. */
  double rate(const Work& work) const;

 private:
  /** Copy engines are taken from this part of the kernel's speed on. */
  static constexpr double ABOUT_AS_FAST = 0.92;
  static constexpr double HALF_AS_FAST = 0.5;
  /** Samples before a way is judged. */
  static constexpr u32 ENOUGH = 2;
  /** How many copies later the other one is looked at again: twice as many each time that it was no better. */
  static constexpr u32 LOOK_AGAIN = 32;
  static constexpr u32 LOOK_SELDOM = 512;
  /** Weight of the latest sample. */
  static constexpr double LATEST = 0.25;

  struct Measured {
    /** The mean of times, not of rates: where copies take turns with another process, one that found the GPU free must not
        outweigh those that waited. */
    double secondsPerByte = 0;
    u32 samples = 0;
  };
  struct Class {
    std::array<Measured, 2> ways;
    u32 since = 0;
    u32 lookAgain = LOOK_AGAIN;
  };
  static constexpr size_t PIECES = 12;
  static constexpr size_t SIZES = 4;
  static size_t classOf(const Work& work);
  Way better(const Class& one) const;

  const std::array<bool, 2> allowed_;
  const double aboutAsFast_;
  mutable std::mutex mutex_;
  std::array<Class, 4 * PIECES * SIZES> classes_;
};

}  // namespace mooncake::cuda
