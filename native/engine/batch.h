// What the engine moves. A batch is the caller's list of records; a slice is the part of it that travels over one link:
// a run of records, the first and last perhaps cut, of bounded size. A failed slice goes to another link; a batch ends
// once, when none of its slices touches memory any more.
#pragma once

#include "memory/segment.h"

#include <chrono>
#include <vector>

namespace mooncake {

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

struct BatchResult {
  Status status;
  u64 bytes = 0;
  u64 verifiedBytes = 0;
  u64 nanoseconds = 0;
};

class Batch;

/** One contiguous piece of a slice: what to move between here and there. */
struct Piece {
  /** Our side. Null where it is a file: see `local`, `localOffset`. */
  u8* address;
  const Segment* local;
  u64 localOffset;
  /** The other side: the peer's segment, or for a copy the source segment. */
  u32 remote;
  u64 remoteOffset;
  u64 length;
};

struct Slice {
  Batch* batch = nullptr;
  /** First record, how many, bytes left out of the first one. */
  u32 first = 0;
  u32 count = 0;
  u64 skip = 0;
  u64 bytes = 0;
  /** Links that failed it, by Link::number, modulo 64. */
  u64 failedOn = 0;
  Clock::time_point postedAt{};

  /** Calls `visit(const Piece&)` for each piece, in order. */
  template <class Visit>
  void forEach(Visit&& visit) const;
};

}  // namespace mooncake
