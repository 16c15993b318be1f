// Host memory that GPUs may address: registered with the driver when a copy first touches it, until its segment is taken
// away. Pinning takes some 50 ms a gigabyte, once.
#pragma once

#include "memory/segment.h"
#include "transport/cuda/gpu.h"

#include <mutex>
#include <unordered_map>

namespace mooncake::cuda {

class Pins {
 public:
  explicit Pins(MemoryTable& memory);
  ~Pins();
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;

  /** Pins the segment, or finds it pinned, for a copy on this GPU. False where the driver will not: it copies such memory
      itself, through staging of its own. Every call that returned true is followed by `release`. */
  bool acquire(const Gpu& gpu, const Segment& segment);
  void release(u32 segment);

 private:
  struct Pin {
    /** Pinned memory must not be unmapped. */
    SegmentRef held;
    const Gpu* gpu = nullptr;
    u8* base = nullptr;
    bool pinned = false;
    u32 uses = 0;
    /** The segment is being taken away. */
    bool leaving = false;
  };
  void removed(const Segment& segment);
  void unpin(Pin& pin);

  MemoryTable& memory_;
  std::mutex mutex_;
  std::unordered_map<u32, Pin> pins_;
  u64 watch_ = 0;
};

}  // namespace mooncake::cuda
