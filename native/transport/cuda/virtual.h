// Memory of cuMemCreate, which has no CUDA IPC handle: an engine that lets its cache sleep (vLLM) allocates so, to give the
// pages back while it keeps the addresses. Its owner hands an allocation over as a file descriptor of the driver's, or, on
// machines of one NVLink domain, as a fabric handle; it is mapped here, for every GPU that reaches the one it is on. The pages
// stay as long as they are mapped anywhere: whoever watches over the owner unregisters what was the owner's.
#pragma once

#include "memory/segment.h"
#include "transport/cuda/gpu.h"

namespace mooncake::cuda {

/** An allocation as its owner hands it over; `bytes`: of the whole of it. */
struct Shared {
  int type = HANDLE_POSIX_FD;
  /** Stays the caller's, who may close it afterwards. */
  int fd = -1;
  FabricHandle fabric{};
  /** Of the whole allocation: the driver does not say. */
  u64 bytes = 0;
};

/** `length` bytes, from `offset` on, of allocations that follow each other as they do at their owner (an expandable segment of
    PyTorch's is one of many). invalidArgument: not what this GPU's driver takes, or another GPU's memory; notSupported: a fabric
    handle where there is no fabric. */
Expected<u32> mapDevice(MemoryTable& memory, const Gpu& gpu, const std::vector<Shared>& shared, u64 offset, u64 length);

/** Memory of our own that can be handed over so; whole granules of it (2 MiB) are taken. Not zeroed. */
Expected<u32> allocateVirtual(MemoryTable& memory, const Gpu& gpu, u64 length);

/** How another process gets at a segment's memory: a descriptor that is the caller's. */
struct ExportedFd {
  int fd = -1;
  /** Where the segment lies in it. */
  u64 offset = 0;
  /** Of all that the descriptor stands for. */
  u64 bytes = 0;
  /** Of a dma-buf: the GPU's address on PCI, where sysfs shows it. */
  std::string pci;
};
/** Of the allocation of cuMemCreate that the segment lies in. invalidArgument: it lies in none. */
Expected<ExportedFd> exportAllocation(const Gpu& gpu, const Segment& segment);
/** A dma-buf of the pages that the segment lies in, by which NICs reach it. notSupported: the GPU offers none. */
Expected<ExportedFd> exportDmabuf(const Gpu& gpu, const Segment& segment);

}  // namespace mooncake::cuda
