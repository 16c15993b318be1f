// Memory that NICs may reach: a segment registered with every device, once, at the same time on all. A registration lasts until
// the segment is released: whoever holds the segment may use its keys. A device that refuses leaves the others usable.
#pragma once

#include "memory/segment.h"
#include "transport/rdma/device.h"

#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace mooncake::rdma {

/** What NICs call a segment's first byte; 0: they do not reach it. */
inline u64 addressOf(const Segment& segment) {
  return segment.backing == Backing::dmabuf ? segment.deviceAddress : reinterpret_cast<u64>(segment.base);
}

/** The keys of a segment, by the device's place in the list. */
struct Region {
  struct Key {
    u32 local = 0;
    u32 remote = 0;
    ibv_mr* handle = nullptr;
    /** Why there is none. */
    std::string refusal{};
  };
  std::vector<Key> keys;
};

class Regions {
 public:
  Regions(MemoryTable& memory, std::vector<std::shared_ptr<Device>> devices)
      : state_(std::make_shared<State>()), memory_(memory) {
    state_->devices = std::move(devices);
  }
  ~Regions() { close(); }

  /** Registered before; null: it is not, or not yet. The pointer is valid while the caller holds the segment. */
  const Region* find(u32 segment) const {
    const std::shared_lock lock(state_->mutex);
    const auto found = state_->regions.find(segment);
    return found == state_->regions.end() ? nullptr : found->second.get();
  }

  /** Registers a segment, or waits for whoever does it: 0.1 to 1 s for each 4 GiB. Fails with segment where it is not in the
      table or has no memory, and with system where every device refuses. */
  Expected<const Region*> add(u32 segment);

  /** Deregisters all. Idempotent. Nothing may be under way any more. */
  void close();

 private:
  /** Segments may be released when this has gone. */
  struct State {
    std::vector<std::shared_ptr<Device>> devices;
    mutable std::shared_mutex mutex;
    std::unordered_map<u32, std::unique_ptr<Region>> regions;
    std::unordered_map<u32, bool> pending;
    std::condition_variable_any settled;
    bool closed = false;
  };
  Expected<std::unique_ptr<Region>> make(const Segment& segment);
  static void drop(const State& state, const Region& region);

  const std::shared_ptr<State> state_;
  MemoryTable& memory_;
};

}  // namespace mooncake::rdma
