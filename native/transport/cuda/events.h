// Events of GPUs, by which processes agree on order: an inference engine records one behind what it wrote, and a batch begins
// no slice before it is over; a batch records one behind its copies, for which the engine's stream waits. A batch waits by
// asking, not in a stream: what is not begun can be given up at any time, and holds up nothing that is begun later.
#pragma once

#include "transport/cuda/gpu.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace mooncake::cuda {

/** An event while somebody uses it: made here, or another process's, opened by its handle. */
class GpuEvent {
 public:
  GpuEvent(const Gpu& of, Event made) : gpu(of), event(made) {}
  ~GpuEvent();
  GpuEvent(const GpuEvent&) = delete;
  GpuEvent& operator=(const GpuEvent&) = delete;

  const Gpu& gpu;
  const Event event;
};
using GpuEventPointer = std::shared_ptr<const GpuEvent>;

/** What a batch waits for, and what it records. */
struct Order {
  std::vector<GpuEventPointer> waits;
  /** All of one GPU. */
  std::vector<GpuEventPointer> signals;
  /** The events were over when they were last looked at, and are so for this batch. */
  std::atomic<bool> begun{false};
  /** Slices that are not launched: whoever launches the last one records. */
  std::atomic<u32> left{0};

  /** Whether its slices may be launched; what the driver says where it cannot tell. Asked by any thread with the GPU's context. */
  Expected<bool> ready();
};

/** Events by their numbers, which are never used twice. */
class Events {
 public:
  /** Other processes may open it by `exportEvent`. */
  Expected<u32> create(const Gpu& gpu);
  /** invalidArgument: not a handle that this GPU's driver opens (one of this process is refused). */
  Expected<u32> open(const Gpu& gpu, const IpcEventHandle& handle);
  Expected<IpcEventHandle> exportEvent(u32 id) const;
  /** Batches under way keep it until they end. */
  Status close(u32 id);
  void closeAll();

  /** For a batch. invalidArgument: no such event, or `signals` of two GPUs. */
  Expected<std::shared_ptr<Order>> order(const std::vector<u32>& waits, const std::vector<u32>& signals) const;

 private:
  Expected<u32> add(const Gpu& gpu, Event event);
  Expected<GpuEventPointer> find(u32 id) const;

  mutable std::mutex mutex_;
  std::map<u32, GpuEventPointer> events_;
  u32 next_ = 1;
};

}  // namespace mooncake::cuda
