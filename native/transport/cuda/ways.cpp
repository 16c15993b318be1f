#include "transport/cuda/ways.h"

#include <algorithm>
#include <bit>

namespace mooncake::cuda {

/** By the power of two of the pieces' mean length, 512 bytes to 1 MiB, and of the whole, each fourfold from 4 MiB on. */
size_t Ways::classOf(const Work& work) {
  const auto power = [](u64 value) { return static_cast<size_t>(std::bit_width(std::max<u64>(value, 1))) - 1; };
  const size_t piece = std::clamp<size_t>(power(work.bytes / std::max<u64>(work.pieces, 1)), 9, 9 + PIECES - 1) - 9;
  const size_t size = (std::clamp<size_t>(power(work.bytes), 22, 22 + 2 * SIZES - 1) - 22) / 2;
  return (((work.host ? 1 : 0) + (work.summed ? 2 : 0)) * PIECES + piece) * SIZES + size;
}

Way Ways::better(const Class& one) const {
  if (!allowed_[0] || !allowed_[1]) return allowed_[0] ? Way::kernel : Way::engines;
  // Copies with sums go by the kernel alone, those of memory that is not pinned by the engines: there is nothing to compare with.
  if (one.ways[0].samples == 0 || one.ways[1].samples == 0) return one.ways[1].samples > 0 ? Way::engines : Way::kernel;
  return one.ways[1].secondsPerByte * aboutAsFast_ <= one.ways[0].secondsPerByte ? Way::engines : Way::kernel;
}

Way Ways::choose(const Work& work) {
  const std::lock_guard lock(mutex_);
  Class& one = classes_[classOf(work)];
  for (const Way way : {Way::kernel, Way::engines}) {
    if (allowed_[static_cast<size_t>(way)] && one.ways[static_cast<size_t>(way)].samples < ENOUGH) return way;
  }
  const Way best = better(one);
  const Way other = best == Way::kernel ? Way::engines : Way::kernel;
  if (!allowed_[static_cast<size_t>(other)] || ++one.since < one.lookAgain) return best;
  one.since = 0;
  one.lookAgain = std::min(2 * one.lookAgain, LOOK_SELDOM);
  return other;
}

void Ways::took(const Work& work, Way way, u64 bytes, double seconds) {
  if (seconds <= 0 || bytes == 0) return;
  const std::lock_guard lock(mutex_);
  Class& one = classes_[classOf(work)];
  Measured& measured = one.ways[static_cast<size_t>(way)];
  const double latest = seconds / static_cast<double>(bytes);
  const Way before = better(one);
  if (measured.samples++ == 0) {
    measured.secondsPerByte = latest;
  } else if (measured.samples <= ENOUGH) {
    // What came first had the driver's own preparations in it.
    measured.secondsPerByte = std::min(measured.secondsPerByte, latest);
  } else {
    measured.secondsPerByte += LATEST * (latest - measured.secondsPerByte);
  }
  if (better(one) != before) one.lookAgain = LOOK_AGAIN;
  // It was the better one this time: whether it stays so is to be known soon, not after many copies that go the wrong way.
  Class alone = one;
  alone.ways[static_cast<size_t>(way)].secondsPerByte = latest;
  if (better(one) != way && better(alone) == way) one.since = one.lookAgain = LOOK_AGAIN;
}

double Ways::rate(const Work& work) const {
  const std::lock_guard lock(mutex_);
  const Class& one = classes_[classOf(work)];
  const double seconds = one.ways[static_cast<size_t>(better(one))].secondsPerByte;
  return seconds > 0 ? 1 / seconds : 0;
}

}  // namespace mooncake::cuda
