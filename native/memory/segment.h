// Registered memory. A segment's number is never used twice, so that a descriptor or a peer that kept it too long names
// nothing instead of another memory. Whoever touches the bytes holds the segment; taking it away refuses new holds and
// waits for those there are.
#pragma once

#include "engine/status.h"
#include "topology/pcie.h"

#include <functional>
#include <memory>
#include <vector>

namespace mooncake {

enum class Backing : u8 {
  foreign,  // the caller's: a Buffer, an engine's tensor
  memfd,    // ours, and mappable by local peers
  file,     // no address: reached by the file transport alone
  device,   // a GPU's, no address here: reached by the cuda transport alone
  dmabuf,   // another device's, no address here: reached by NICs alone
};

/** How a file is moved without the page cache; no fd where its file system cannot. */
struct DirectAccess {
  /** A second descriptor of the file, with O_DIRECT; the segment's release closes it. */
  int fd = -1;
  /** Offsets and lengths are multiples of this many bytes, a power of two. */
  u32 granule = 0;
  /** Addresses are. */
  u32 memoryAlignment = 0;
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
  /** NUMA node the pages are on, -1 unknown: then the table asks the kernel. */
  int numaNode = -1;
  /** device: which GPU (the driver's ordinal), and where it has the memory. dmabuf: what NICs call its first byte. */
  int device = -1;
  u64 deviceAddress = 0;
  /** The path of a file segment. */
  std::string path;
  DirectAccess direct;
  /** A dma-buf whose bytes these are, from `fdOffset` on: how NICs register memory of other devices. The table's, closed with
      the segment; -1: it is the processor's memory. */
  int dmabuf = -1;
  /** Of the device that has the bytes; none: not known. */
  PciPlace place;
};

/** Keeps a segment's bytes where they are. Movable; empty where the segment could not be held. */
class SegmentRef {
 public:
  SegmentRef() = default;
  SegmentRef(SegmentRef&&) noexcept = default;
  SegmentRef& operator=(SegmentRef&&) noexcept = default;
  SegmentRef(const SegmentRef&) = delete;
  SegmentRef& operator=(const SegmentRef&) = delete;

  explicit operator bool() const { return segment_ != nullptr; }
  const Segment* operator->() const { return segment_.get(); }
  const Segment& operator*() const { return *segment_; }
  void reset() { segment_.reset(); }

 private:
  friend class MemoryTable;
  explicit SegmentRef(std::shared_ptr<const Segment> segment) : segment_(std::move(segment)) {}
  /** Whoever lets go last runs the releases. */
  std::shared_ptr<const Segment> segment_;
};

class MemoryTable {
 public:
  using Released = std::function<void()>;
  /** Told of a removal before it waits for holds: transports that granted access to local peers take it back. Must not
      call `watch` or `unwatch`. */
  using Watcher = std::function<void(const Segment&)>;

  MemoryTable();
  ~MemoryTable();

  /** Registers memory; `release` runs once, when it was removed and nobody holds it any more (unmap, drop a reference). Refuses
      an empty range and one that leaves the address space. On failure the fd and `release` are the caller's. */
  Expected<u32> add(Segment segment, Released release);

  /** The segment, held; empty where it is unknown or being taken away. */
  SegmentRef hold(u32 id);

  /** A segment in which the whole of [address, address + length) lies, held: for the wire, which speaks addresses. Where
      registrations overlap, one of them; `forWriting`: one that peers may write. */
  SegmentRef holdAddress(u64 address, u64 length, bool forWriting = false);

  /** Takes a segment away; `released` runs after the segment's own release, on whichever thread let go last. */
  Status remove(u32 id, Released released);

  /** Runs `hook` when the segment is released, before its own release: transports take back what they know it by. False, and it
      is not kept, where the segment is unknown or being taken away. */
  bool atRelease(u32 id, Released hook);

  /** Called for each removal from then on; the returned number ends it. After `unwatch` it is not called and
      not running. */
  u64 watch(Watcher watcher);
  void unwatch(u64 watcher);

  /** Copies of what is registered, in order of their numbers. */
  std::vector<Segment> list() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mooncake
