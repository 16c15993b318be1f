// The other end as the engine sees it: its name, its run, its segments, and the links to it.
#pragma once

#include "engine/status.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace mooncake {

/** A segment of a peer. Stock peers know addresses alone; their segments get numbers from whoever opened the peer. */
struct RemoteSegment {
  u32 id = 0;
  u64 address = 0;
  u64 length = 0;
  /** With which NICs reach it: one for each NIC of the peer, in the order in which it announces them. Null: none were announced. */
  std::shared_ptr<const std::vector<u32>> keys{};
  /** False where the peer says that it may be read alone; Mooncake's engines do not say. */
  bool writable = true;
};

class Peer {
 public:
  Peer(std::string name, u64 generation) : name_(std::move(name)), generation_(generation) {}

  const std::string& name() const { return name_; }
  /** Of the peer's run, as its descriptor says it; 0 for stock peers, which have none. */
  u64 generation() const { return generation_; }

  void setSegment(const RemoteSegment& segment) {
    const std::unique_lock lock(mutex_);
    segments_[segment.id] = segment;
    version_++;
  }
  /** All that the peer has; others are forgotten. */
  void setSegments(const std::vector<RemoteSegment>& segments) {
    const std::unique_lock lock(mutex_);
    segments_.clear();
    for (const RemoteSegment& segment : segments) segments_[segment.id] = segment;
    version_++;
  }
  /** Another one whenever segments may be others than before. */
  u64 version() const { return version_.load(std::memory_order_acquire); }
  /** False where the peer has announced no such segment. */
  bool segment(u32 id, RemoteSegment& out) const {
    const std::shared_lock lock(mutex_);
    const auto found = segments_.find(id);
    if (found == segments_.end()) return false;
    out = found->second;
    return true;
  }

 private:
  const std::string name_;
  const u64 generation_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<u32, RemoteSegment> segments_;
  std::atomic<u64> version_{1};
};

}  // namespace mooncake
