// What the engine moves. A batch is the caller's list of records; a slice is the part of it that travels over one link:
// a run of records, the first and last perhaps cut, of bounded size. A failed slice goes to another link; a batch ends
// once, when none of its slices touches memory any more. Until then it holds every segment of ours that it names, so
// that links may use the addresses in a Piece without holding anything themselves.
#pragma once

#include "memory/segment.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace mooncake {

class Batch;
class Link;
class Peer;
namespace cuda {
struct Order;
}

using Clock = std::chrono::steady_clock;

/** A record of KVTD descriptors (src/core/descriptors.ts): little-endian, 32 bytes, as in memory here. */
struct Record {
  u32 source;
  u32 destination;
  u64 sourceOffset;
  u64 destinationOffset;
  u64 length;
};
static_assert(sizeof(Record) == 32);

/** read: the peer's memory is the source; write: it is the destination; copy: both sides are ours. */
enum class Op : u8 { read, write, copy };

/** What every record of a batch stands for: so many runs of its length, one stride apart on each side. Heads of a KV cache that
    are split or joined lie so: a run for each token, further apart where there are more heads. */
struct Repeat {
  u32 count = 1;
  u64 sourceStride = 0;
  u64 destinationStride = 0;

  u64 sourceExtent(u64 length) const { return length + (count - 1) * sourceStride; }
  u64 destinationExtent(u64 length) const { return length + (count - 1) * destinationStride; }
};

struct BatchResult {
  Status status;
  u64 bytes = 0;
  u64 verifiedBytes = 0;
  u64 nanoseconds = 0;
};

/** One contiguous part of a slice: what to move between here and there. */
struct Piece {
  /** Our side: the destination, except for writes. Null where it is a file or a GPU's: see `local`, `localOffset`. */
  u8* address;
  const Segment* local;
  u64 localOffset;
  /** The other side: the peer's segment, or for a copy the source segment. */
  u32 remote;
  u64 remoteOffset;
  u64 length;
  /** For a copy, the source segment, which is ours too. Null otherwise. */
  const Segment* source;
};

/** Which links can carry them is the same for all records of a slice. */
struct Slice {
  Batch* batch = nullptr;
  /** The link that has it, while one has. */
  Link* link = nullptr;
  /** First record, and how many. */
  u32 first = 0;
  u32 count = 0;
  /** Bytes left out at the start of the first record and at the end of the last. */
  u64 skip = 0;
  u64 tail = 0;
  /** Sum over its pieces. */
  u64 bytes = 0;
  /** Links that failed it, by Link::number, modulo 64. */
  u64 failedOn = 0;
  /** A side of ours is a file segment. */
  bool file = false;
  /** Sides of ours are memory of these GPUs: a bit for each. */
  u64 devices = 0;
  /** A side of ours has no address for the processor (Backing::dmabuf). */
  bool unmapped = false;
  /** NUMA node of our side (of a copy: its destination); -1: not known. */
  int node = -1;
  /** Of the device that has our side, where that is known; the batch holds it. */
  const PciPlace* place = nullptr;
  /** For queues and tables of the link that has it; the engine does not look at them. */
  Slice* next = nullptr;
  u64 tag = 0;

  /** The piece of record `first + index`. */
  Piece piece(u32 index) const;

  /** Calls `visit(const Piece&)` for each piece, in order. */
  template <class Visit>
  void forEach(Visit&& visit) const;
};

/** Limits by which a batch is cut: the least of what the links it may use can take. */
struct SliceLimits {
  u64 bytes = 1 << 20;
  u32 records = 4096;
  /** Of slices with memory of GPUs. */
  u64 deviceBytes = u64{1} << 28;
  u32 deviceRecords = 1 << 13;
};

/** What links may read of a batch does not change while it is under way. */
class Batch {
 public:
  Batch(u64 number, Op op, bool verify, Clock::time_point deadline, std::vector<Record> records)
      : number_(number), op_(op), verify_(verify), deadline_(deadline), records_(std::move(records)) {}
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  u64 number() const { return number_; }
  Op op() const { return op_; }
  /** Compare checksums of what arrived. */
  bool verify() const { return verify_; }
  Clock::time_point deadline() const { return deadline_; }
  const std::vector<Record>& records() const { return records_; }
  const Repeat& repeat() const { return repeat_; }
  /** Events of GPUs that it waits for, and records; null: none. */
  cuda::Order* order() const { return order_.get(); }
  /** Before `prepare`. Both are for batches every record of which names memory of a GPU. */
  void set(const Repeat& repeat, std::shared_ptr<cuda::Order> order) {
    repeat_ = repeat;
    order_ = std::move(order);
  }

  /** A segment of ours that the batch names; null for others. */
  const Segment* segment(u32 id) const {
    const auto found = std::lower_bound(held_.begin(), held_.end(), id,
                                        [](const SegmentRef& ref, u32 wanted) { return ref->id < wanted; });
    return found != held_.end() && (*found)->id == id ? &**found : nullptr;
  }

  /** Checks every record against our segments and those of `peer` (null for a copy), holds ours, and cuts the slices. After
      a failure the batch is of no use. */
  Status prepare(MemoryTable& memory, const Peer* peer, const SliceLimits& limits);

  std::vector<Slice>& slices() { return slices_; }
  u64 bytes() const { return bytes_; }

 private:
  Status checkRepeat(size_t record, const SliceLimits& limits) const;
  Status hold(MemoryTable& memory, u32 id, size_t record, const char* side, const Segment*& out);
  void cut(const SliceLimits& limits);
  bool touchesFile(const Record& record) const;
  u64 devicesOf(const Record& record) const;
  int nodeOf(const Record& record) const;
  const PciPlace* placeOf(const Record& record) const;
  bool unmapped(const Record& record) const;

  const u64 number_;
  const Op op_;
  const bool verify_;
  const Clock::time_point deadline_;
  const std::vector<Record> records_;
  Repeat repeat_;
  std::shared_ptr<cuda::Order> order_;
  /** By id, each once. */
  std::vector<SegmentRef> held_;
  std::vector<Slice> slices_;
  u64 bytes_ = 0;
  /** Some record names a file segment, a GPU's, a dma-buf, one of which the NUMA node is known. */
  bool files_ = false;
  bool devices_ = false;
  bool dmabufs_ = false;
  bool nodes_ = false;
};

namespace detail {

/** `here` and `source` as in Piece; null where the batch does not name them yet. */
inline Piece pieceOf(const Batch& batch, const Slice& slice, u32 index, const Segment* here, const Segment* source) {
  const Record& record = batch.records()[slice.first + index];
  const u64 skip = index == 0 ? slice.skip : 0;
  const bool write = batch.op() == Op::write;
  const u64 ours = (write ? record.sourceOffset : record.destinationOffset) + skip;
  return {
      here->base == nullptr ? nullptr : here->base + ours,
      here,
      ours,
      write ? record.destination : record.source,
      (write ? record.destinationOffset : record.sourceOffset) + skip,
      record.length - skip - (index + 1 == slice.count ? slice.tail : 0),
      source,
  };
}

}  // namespace detail

inline Piece Slice::piece(u32 index) const {
  const Record& record = batch->records()[first + index];
  return detail::pieceOf(*batch, *this, index,
                         batch->segment(batch->op() == Op::write ? record.source : record.destination),
                         batch->op() == Op::copy ? batch->segment(record.source) : nullptr);
}

template <class Visit>
void Slice::forEach(Visit&& visit) const {
  const bool write = batch->op() == Op::write;
  const bool copy = batch->op() == Op::copy;
  const Segment* here = nullptr;
  const Segment* source = nullptr;
  // Records next to each other mostly name the same segments.
  for (u32 index = 0; index < count; index++) {
    const Record& record = batch->records()[first + index];
    const u32 ours = write ? record.source : record.destination;
    if (here == nullptr || here->id != ours) here = batch->segment(ours);
    if (copy && (source == nullptr || source->id != record.source)) source = batch->segment(record.source);
    const Piece piece = detail::pieceOf(*batch, *this, index, here, source);
    visit(piece);
  }
}

}  // namespace mooncake
