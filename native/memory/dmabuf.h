// Memory of another device, given as a dma-buf: NICs reach it, the processor does not.
#pragma once

#include "memory/segment.h"

namespace mooncake {

/** `length` bytes from `offset` of a dma-buf, as a segment without an address for the processor; its `deviceAddress`, by which peers
    name its bytes, is nobody else's in this process. `fd` stays the caller's. Fails with invalidArgument where it is no
    descriptor of such bytes. `place`: of the device that has them, by which near NICs are preferred. */
Expected<u32> addDmabuf(MemoryTable& memory, int fd, u64 offset, u64 length, bool writable, const PciPlace& place = {});

}  // namespace mooncake
