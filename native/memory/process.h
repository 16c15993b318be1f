// Memory of the process that no engine owns, such as a store's segments. An engine with which it is registered finds its memfd
// here, so that local peers can map it all the same.
#pragma once

#include "memory/segment.h"

namespace mooncake {

MemoryTable& processMemory();

/** Makes `segment`, which is the caller's memory, mappable by local peers where it is one of processMemory(): its backing becomes
    memfd, with a descriptor of its own. A part of one stays foreign: who maps a memfd sees all of it. */
Status shareProcessMemory(Segment& segment);

/** Lets the allocator keep up to `bytes` of freed memory, so that large blocks reuse each other's pages. False where the C library
    cannot be told. */
bool keepFreedMemory(u64 bytes);

}  // namespace mooncake
