// Which NUMA node memory is on.
#pragma once

#include "engine/status.h"

namespace mooncake {

/** Where the kernel has put the first, the middle and the last page of that memory; -1: on several nodes, nowhere yet, or it does
    not say (containers may not ask), or the machine has one node. */
int numaNodeOf(const u8* base, u64 length);

}  // namespace mooncake
