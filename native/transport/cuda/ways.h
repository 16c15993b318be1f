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
  /** Only ways that are `allowed` are chosen; at least one is. */
  Ways(bool kernel, bool engines) : allowed_{kernel, engines} {}

  Way choose(const Work& work);
  /** How long such work took by that way, with nothing else of ours before it. */
  void took(const Work& work, Way way, double seconds);
  /** Bytes a second by the way that would be chosen; 0: not known yet. */
  double rate(const Work& work) const;

 private:
  /** Copy engines are taken from this part of the kernel's speed on. */
  static constexpr double ABOUT_AS_FAST = 0.92;
  /** Samples before a way is judged, and how many copies later the other one is looked at again. */
  static constexpr u32 ENOUGH = 2;
  static constexpr u32 LOOK_AGAIN = 32;
  static constexpr u32 LOOK_AGAIN_SLOW = 512;
  /** Weight of the latest sample. */
  static constexpr double LATEST = 0.5;

  struct Measured {
    double rate = 0;
    u32 samples = 0;
  };
  struct Class {
    std::array<Measured, 2> ways;
    u32 since = 0;
  };
  static constexpr size_t PIECES = 12;
  static constexpr size_t SIZES = 4;
  static size_t classOf(const Work& work);
  Way better(const Class& one) const;

  const std::array<bool, 2> allowed_;
  mutable std::mutex mutex_;
  std::array<Class, 4 * PIECES * SIZES> classes_;
};

}  // namespace mooncake::cuda
