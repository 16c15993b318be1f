// What processes share of the simulated driver beside memory of cuMemAlloc: allocations of cuMemCreate, by their descriptors, and
// events, by their handles.
#pragma once

#include "test/cuda/double.h"

namespace mooncake::test {

/** The one of this process. */
CudaDouble& simulated();

/** Puts the calls of both in the place of those that know this process alone. */
void addSharedCalls(cuda::Driver& driver);

}  // namespace mooncake::test
