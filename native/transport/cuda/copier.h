// One GPU's copies: a thread that turns slices into launches and sees to their end. A slice becomes a list of runs in pinned
// memory, which the kernel reads while it copies (kernels.cu); where the kernel cannot address a side (host memory that
// could not be pinned, a GPU without peer access) the driver copies run by run. Several launches are under way at once, on
// two streams, so that one's end does not leave the GPU idle before the next begins; they have the lowest priority, and
// use few of its multiprocessors: what saturates the link, not what is free.
#pragma once

#include "transport/cuda/pins.h"
#include "transport/transport.h"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mooncake::cuda {

/** As kernels.cu has it. */
struct Run {
  Pointer source;
  Pointer destination;
  u64 length;
};

class Copier {
 public:
  using Settled = std::function<void(Slice& slice, Status status)>;

  static constexpr u32 SLICE_RECORDS = 1 << 13;
  static constexpr u64 SLICE_BYTES = u64{1} << 28;

  /** `settled` is called on the copier's thread, or by `post`, `cancel` and `close`. */
  Copier(const Gpu& gpu, Pins& pins, std::chrono::microseconds spin, Settled settled);
  ~Copier() { close(); }

  void post(Slice& slice);
  /** Slices of the batch that were not launched settle now; the others are over in milliseconds. */
  void cancel(Batch& batch);
  void close();

  /** Bytes queued and under way. */
  u64 load() const { return load_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t SLOTS = 8;
  /** Runs are at most so long, so that all thread blocks end at about the same time. */
  static constexpr u64 LONGEST_RUN = 64 << 10;
  static constexpr u64 SHORTEST_CUT = 16 << 10;
  static constexpr size_t RUNS = SLICE_RECORDS + SLICE_BYTES / LONGEST_RUN + 1024;
  /** What reaches the rate of PCIe 5 and of NVLink 4 with room to spare (docs/gpu.md). */
  static constexpr u32 HOST_BLOCKS = 16;
  static constexpr u32 DEVICE_BLOCKS = 64;
  static constexpr u32 THREADS = 512;
  static constexpr std::chrono::microseconds LOOK_EVERY{10};
  static constexpr std::chrono::milliseconds LONG_WAIT{20};

  struct Slot {
    Slice* slice = nullptr;
    Run* runs = nullptr;
    Event done = nullptr;
    /** Host segments that are pinned for it. */
    std::vector<u32> pinned;
  };

  void work();
  Status prepare();
  void unprepare();
  void start(Slice& slice);
  Status launch(Slot& slot, Stream stream);
  /** False where some side is not for the kernel. */
  bool pin(Slot& slot, const Segment& segment);
  void await(const Slot& slot);
  void finish(Slot& slot);
  void over(Slice& slice, Status status);

  const Gpu& gpu_;
  const Driver& driver_;
  Pins& pins_;
  const std::chrono::microseconds spin_;
  const Settled settled_;

  std::atomic<u64> load_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slice*> queue_;
  bool started_ = false;
  bool closed_ = false;
  std::thread thread_;

  // The thread's own.
  Status broken_;
  Run* memory_ = nullptr;
  std::array<Stream, 2> streams_{};
  std::array<Slot, SLOTS> slots_;
  u64 launched_ = 0;
  u64 finished_ = 0;
};

}  // namespace mooncake::cuda
