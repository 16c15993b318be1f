// A slice on its way between this process and a local peer. Its pieces are cut into jobs: a job is what one copy thread
// does at a stretch, and all its pieces are reached in the same way.
#pragma once

#include "transport/shm/mapping.h"
#include "transport/shm/messages.h"

#include "engine/batch.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

namespace mooncake::shm {

/** How a segment of the peer is reached, best first. */
enum class Reach : u8 {
  mapped,  // it lies in our address space
  vm,      // process_vm_readv and process_vm_writev
  staged,  // the peer copies, by a ring that both see
};

/** Access to a segment of the peer, until nobody shares it any more: then the peer is told. */
struct Grant {
  u32 number = 0;
  u32 segment = 0;
  Reach reach = Reach::staged;
  bool writable = false;
  u64 address = 0;
  u64 length = 0;
  Mapping mapping;
  /** The segment is being taken away: nothing of it is touched from then on. */
  std::atomic<bool> revoked{false};
  std::function<void(u32 number)> released;

  ~Grant() {
    mapping.reset();
    if (released) released(number);
  }
};

struct Extent {
  u8* local;
  const Grant* grant;
  u64 offset;
  u64 length;
};

struct Transfer;

struct Job {
  Transfer* transfer = nullptr;
  Reach reach = Reach::mapped;
  /** Of the transfer's extents. */
  u32 first = 0;
  u32 count = 0;
  u64 bytes = 0;
  /** Of its stage, and its slot of the ring. */
  u32 token = 0;
  u32 slot = 0;
  bool hasSlot = false;
  /** CRC of our side and of the peer's. */
  u64 ours = 0;
  u64 theirs = 0;
};

struct Transfer {
  explicit Transfer(Slice& moved) : slice(moved), write(moved.batch->op() == Op::write), verify(moved.batch->verify()) {}

  Slice& slice;
  const bool write;
  const bool verify;
  std::vector<std::shared_ptr<Grant>> grants;
  std::vector<Extent> extents;
  std::vector<Job> jobs;
  /** Segments of the peer that it is parked for. */
  std::unordered_set<u32> missing;
  std::atomic<bool> cancelled{false};
  /** Jobs that have not ended, and one for whoever starts them. */
  std::atomic<u32> remaining{0};

  /** Keeps the first failure. */
  void fail(Status failure) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = std::move(failure);
  }
  Status takeStatus() {
    const std::lock_guard lock(mutex_);
    return std::move(status_);
  }

  /** Adds a piece; continues the last extent where both sides do. */
  void add(const std::shared_ptr<Grant>& grant, u8* local, u64 offset, u64 length);
  /** Cuts the extents into jobs. */
  void cut();

 private:
  std::mutex mutex_;
  Status status_;
};

/** Bytes of a staged job, at most: a slot of the ring. Smaller ones cost more messages, a larger ring falls out of the caches. */
constexpr u32 SLOT_BYTES = 512 << 10;
constexpr u32 SLOTS = 16;

}  // namespace mooncake::shm
