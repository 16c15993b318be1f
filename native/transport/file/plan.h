// Cuts a copy into steps that a file system takes. Direct I/O moves whole granules alone; what a copy touches
// of the granules at its ends goes through the page cache, by the segment's other descriptor:
//
//            granule          granule          granule          granule
//        |.......======|================|================|=====...........|
//                head          direct          direct      tail
//
// So a granule moved directly lies within one copy, and a granule that two copies share is touched through
// the page cache alone, where the kernel joins their bytes. A granule is at least a page, the file system's
// block, and what the device asks for; the page cache never mixes a direct write with another copy's edge.
#pragma once

#include "memory/segment.h"

#include <vector>

namespace mooncake::file {

/** Bytes of a bounce buffer, and so the most that a step that needs one moves. */
constexpr u64 BOUNCE_BYTES = 256 << 10;

/** A copy between two segments of which each is memory or a file. Both ranges lie within their segments. */
struct Transfer {
  const Segment* source;
  u64 sourceOffset;
  const Segment* target;
  u64 targetOffset;
  u64 length;
};

/** One end of a step: a place in a file, or memory. */
struct End {
  /** Null where this end is memory. */
  const Segment* file = nullptr;
  u64 offset = 0;
  /** By the descriptor with O_DIRECT. */
  bool direct = false;
  u8* memory = nullptr;
};

struct Step {
  End source;
  End target;
  u64 length = 0;
  /** Goes through a bounce buffer: between files, and where memory is not aligned as direct I/O asks. */
  bool bounce = false;
};

/** Appends the steps of a copy. */
void plan(const Transfer& transfer, std::vector<Step>& steps);

} // namespace mooncake::file
