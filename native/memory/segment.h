// Registered memory. A segment's number is never used twice, so that a descriptor or a peer that kept it too long names
// nothing instead of another memory. Whoever touches the bytes holds the segment; taking it away refuses new holds and
// waits for those there are.
#pragma once

#include "engine/status.h"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace mooncake {

enum class Backing : u8 {
  foreign,  // the caller's: a Buffer, an engine's tensor
  memfd,    // ours, and mappable by local peers
  file,     // no address: reached by the file transport alone
};

struct Segment {
  u32 id = 0;
  u8* base = nullptr;
  u64 length = 0;
  /** Peers may write it. */
  bool writable = true;
  Backing backing = Backing::foreign;
  /** memfd or file; the table's, closed with the segment. -1 where there is none. */
  int fd = -1;
  /** Bytes from the start of `fd` to the segment's first. */
  u64 fdOffset = 0;
  /** NUMA node the pages are on, -1 unknown. */
  int numaNode = -1;
  /** The path of a file segment. */
  std::string path;
};

class MemoryTable;

/** Keeps a segment's bytes where they are. Movable; empty where the segment could not be held. */
class SegmentRef {
 public:
  SegmentRef() = default;
  SegmentRef(SegmentRef&&) noexcept;
  SegmentRef& operator=(SegmentRef&&) noexcept;
  SegmentRef(const SegmentRef&) = delete;
  SegmentRef& operator=(const SegmentRef&) = delete;
  ~SegmentRef() { reset(); }

  explicit operator bool() const { return entry_ != nullptr; }
  const Segment* operator->() const;
  const Segment& operator*() const;
  void reset();

 private:
  friend class MemoryTable;
  struct Entry;
  explicit SegmentRef(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
  std::shared_ptr<Entry> entry_;
};

class MemoryTable {
 public:
  using Released = std::function<void()>;
  /** Told of a removal before it waits for holds: transports that granted access to local peers take it back. */
  using Watcher = std::function<void(const Segment&)>;

  MemoryTable();
  ~MemoryTable();

  /** Registers memory; `release` runs once, when it was removed and nobody holds it any more (unmap, drop a reference). */
  Expected<u32> add(Segment segment, Released release);

  /** The segment, held; empty where it is unknown or being taken away. */
  SegmentRef hold(u32 id);

  /** The segment in which the whole of [address, address + length) lies, held: for the wire, which speaks addresses. */
  SegmentRef holdAddress(u64 address, u64 length);

  /** Takes a segment away; `released` runs after the segment's own release, on whichever thread let go last. */
  Status remove(u32 id, Released released);

  /** Called for each removal from then on; the returned number ends it. */
  u64 watch(Watcher watcher);
  void unwatch(u64 watcher);

  /** Copies of what is registered, in order of their numbers. */
  std::vector<Segment> list() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mooncake
