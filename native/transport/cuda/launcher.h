// Turns slices into work of one GPU: launches of our kernels, or copies by the driver. A slice becomes a list of runs in pinned
// memory, which the kernel reads while it copies (kernels.cu); where the kernel cannot address a side (host memory that
// could not be pinned, a GPU without peer access) the driver copies run by run. Work has the lowest priority, and a kernel
// no more of the GPU's multiprocessors than saturate the link, nor than its share.
#pragma once

#include "transport/cuda/events.h"
#include "transport/cuda/pins.h"
#include "transport/cuda/ways.h"
#include "transport/transport.h"

#include <array>

namespace mooncake::cuda {

/** As kernels.cu has it. */
struct Run {
  Pointer source;
  Pointer destination;
  u64 length;
};
/** As kernels.cu has it: `count` runs of `length`, one stride apart. */
struct Rows {
  Pointer source;
  Pointer destination;
  u64 length;
  u64 count;
  u64 sourceStride;
  u64 destinationStride;
};

/** What may be taken from whoever computes on the GPU. */
struct Share {
  /** Of its multiprocessors, for kernels; 0: none, the copy engines do it all, and nothing is verified. */
  double multiprocessors = 0.5;
  /** "kernel" or "engines": that way alone, for tests and measurements; else whichever is better. */
  std::string way{};
};

/** One launch's memory, and what it is for. */
struct Slot {
  Slice* slice = nullptr;
  /** Runs, or rows. */
  Run* runs = nullptr;
  /** Of each run, the sum of what was read; after those of all, of what was then found where it was written. */
  u64* sums = nullptr;
  u32 count = 0;
  bool summed = false;
  Way way = Way::kernel;
  Work work;
  Event done = nullptr;
  /** Host segments that are pinned for it. */
  std::vector<u32> pinned;
  Clock::time_point launched{};
};

class Launcher {
 public:
  static constexpr u32 SLICE_RECORDS = 1 << 13;
  static constexpr u64 SLICE_BYTES = u64{1} << 28;
  static constexpr size_t SLOTS = 8;

  Launcher(const Gpu& gpu, Pins& pins, const Share& share);
  /** With the GPU's context current, as all that follows. */
  Status prepare();
  void unprepare();

  std::array<Slot, SLOTS>& slots() { return slots_; }
  /** Puts the slot's slice under way; `done` is recorded behind it. On failure nothing of it is, and nothing is pinned. `as`: the
      way of what is under way beside it, null where that is nothing. */
  Status launch(Slot& slot, const Way* as);
  /** Of a slot whose `done` is over: what was found out, and nothing is pinned for it any more. */
  Status finish(Slot& slot);

  const Ways& ways() const { return ways_; }
  Ways& ways() { return ways_; }

 private:
  /** Runs are at most so long, so that all thread blocks end at about the same time. */
  static constexpr u64 LONGEST_RUN = 64 << 10;
  static constexpr u64 SHORTEST_CUT = 16 << 10;
  static constexpr u64 SHORTEST_SUMMED = 8 << 10;
  static constexpr size_t RUNS = SLICE_RECORDS + SLICE_BYTES / SHORTEST_CUT + 1024;
  /** What reaches the rate of PCIe 5 and of NVLink 4 with room to spare (docs/gpu.md). */
  static constexpr u32 HOST_BLOCKS = 16;
  static constexpr u32 DEVICE_BLOCKS = 64;
  /** Sums of what only GPUs have: two for each byte. */
  static constexpr u32 SUMMED_BLOCKS = 128;
  static constexpr u32 THREADS = 512;
  static constexpr u32 WARPS = THREADS / 32;

  /** False where some side is not for the kernel. */
  bool pin(Slot& slot, const Segment& segment);
  bool pinAll(Slot& slot);
  void unpin(Slot& slot);
  Status byKernel(Slot& slot, Stream stream);
  Status byRows(Slot& slot, Stream stream);
  Status byEngines(Slot& slot, Stream stream, bool oneCall);
  void list(Slot& slot, u64 cut);
  Status run(const char* what, Function kernel, u32 blocks, Stream stream, void** parameters);
  u32 blocks(const Slot& slot) const;
  Status compare(const Slot& slot) const;

  const Gpu& gpu_;
  const Driver& driver_;
  Pins& pins_;
  /** Thread blocks that kernels may have. */
  const u32 mostBlocks_;
  Ways ways_;
  std::array<Stream, 2> streams_{};
  u8* memory_ = nullptr;
  std::array<Slot, SLOTS> slots_;
  u64 turns_ = 0;
  /** Lists for the driver's copies, kept for their memory. */
  std::vector<Pointer> sources_;
  std::vector<Pointer> destinations_;
  std::vector<size_t> lengths_;
};

}  // namespace mooncake::cuda
