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
  return one.ways[1].rate >= ABOUT_AS_FAST * one.ways[0].rate ? Way::engines : Way::kernel;
}

Way Ways::choose(const Work& work) {
  const std::lock_guard lock(mutex_);
  Class& one = classes_[classOf(work)];
  for (const Way way : {Way::kernel, Way::engines}) {
    if (allowed_[static_cast<size_t>(way)] && one.ways[static_cast<size_t>(way)].samples < ENOUGH) return way;
  }
  const Way best = better(one);
  const Way other = best == Way::kernel ? Way::engines : Way::kernel;
  if (!allowed_[static_cast<size_t>(other)]) return best;
  const bool hopeless = one.ways[static_cast<size_t>(other)].rate < one.ways[static_cast<size_t>(best)].rate / 4;
  if (++one.since < (hopeless ? LOOK_AGAIN_SLOW : LOOK_AGAIN)) return best;
  one.since = 0;
  return other;
}

void Ways::took(const Work& work, Way way, double seconds) {
  if (seconds <= 0) return;
  const std::lock_guard lock(mutex_);
  Measured& measured = classes_[classOf(work)].ways[static_cast<size_t>(way)];
  const double rate = static_cast<double>(work.bytes) / seconds;
  // What came first had the driver's own preparations in it.
  measured.rate = measured.samples < ENOUGH ? std::max(measured.rate, rate) : measured.rate + LATEST * (rate - measured.rate);
  measured.samples++;
}

double Ways::rate(const Work& work) const {
  const std::lock_guard lock(mutex_);
  const Class& one = classes_[classOf(work)];
  return one.ways[static_cast<size_t>(better(one))].rate;
}

}  // namespace mooncake::cuda
