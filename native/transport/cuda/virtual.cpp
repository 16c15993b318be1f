#include "transport/cuda/virtual.h"

#include "transport/cuda/memory.h"

#include <unistd.h>

namespace mooncake::cuda {

namespace {

/** An allocation at an address of ours. */
struct Mapping {
  Pointer base = 0;
  u64 bytes = 0;
};

void unmap(const Gpu& gpu, const Mapping& mapping) {
  const Current current(gpu);
  gpu.driver->unmap(mapping.base, mapping.bytes);
  gpu.driver->unreserve(mapping.base, mapping.bytes);
}

/** The mapping keeps the allocation: the caller drops its own handle of it. */
Expected<Mapping> map(const Gpu& gpu, Allocation allocation, u64 bytes) {
  const Driver& driver = *gpu.driver;
  Mapping mapping{0, bytes};
  Status status = gpu.status("cuMemAddressReserve of " + std::to_string(bytes) + " bytes", driver.reserve(&mapping.base, bytes, 0, 0, 0));
  if (!status.ok()) return status;
  if (const Result result = driver.map(mapping.base, bytes, 0, allocation, 0); result != SUCCESS) {
    driver.unreserve(mapping.base, bytes);
    return gpu.status("cuMemMap of " + std::to_string(bytes) + " bytes", result);
  }
  std::vector<Access> access;
  for (const int device : gpu.reachedFrom) access.push_back({{LOCATION_DEVICE, device}, ACCESS_READ_WRITE});
  status = gpu.status("cuMemSetAccess", driver.setAccess(mapping.base, bytes, access.data(), access.size()));
  if (status.ok()) return mapping;
  unmap(gpu, mapping);
  return status;
}

Expected<u32> add(MemoryTable& memory, const Gpu& gpu, const Mapping& mapping, u64 offset, u64 length) {
  const auto release = [&gpu, mapping] { unmap(gpu, mapping); };
  Expected<u32> id = memory.add(segmentOf(gpu, mapping.base + offset, length), release);
  if (!id.ok()) release();
  return id;
}

AllocationProperties propertiesOn(const Gpu& gpu) {
  AllocationProperties properties{};
  properties.type = ALLOCATION_PINNED;
  properties.handleTypes = HANDLE_POSIX_FD;
  properties.location = {LOCATION_DEVICE, gpu.device};
  return properties;
}

/** The imported allocation; the caller's to drop. */
Expected<Allocation> import(const Gpu& gpu, const Shared& shared) {
  const Driver& driver = *gpu.driver;
  FabricHandle fabric = shared.fabric;
  void* const named = shared.type == HANDLE_FABRIC ? static_cast<void*>(&fabric) : reinterpret_cast<void*>(static_cast<intptr_t>(shared.fd));
  Allocation allocation = 0;
  if (const Result result = driver.importAllocation(&allocation, named, shared.type); result != SUCCESS) {
    return Status(Code::invalidArgument, gpu.status("cuMemImportFromShareableHandle", result).detail);
  }
  AllocationProperties properties{};
  if (const Result result = driver.properties(&properties, allocation);
      result != SUCCESS || (shared.type == HANDLE_POSIX_FD && properties.location.id != gpu.device)) {
    driver.drop(allocation);
    return Status(Code::invalidArgument, result != SUCCESS ? gpu.status("cuMemGetAllocationPropertiesFromHandle", result).detail
                                                           : "the allocation is not on " + gpu.uuid + " but on another GPU");
  }
  return allocation;
}

}  // namespace

Expected<u32> mapDevice(MemoryTable& memory, const Gpu& gpu, const Shared& shared, u64 offset, u64 length) {
  if (offset > shared.bytes || length > shared.bytes - offset) {
    return Status(Code::invalidArgument, std::to_string(length) + " bytes at " + std::to_string(offset) + " leave the allocation's " +
                                             std::to_string(shared.bytes));
  }
  const Current current(gpu);
  if (shared.type == HANDLE_FABRIC) {
    int offered = 0;
    if (gpu.driver->deviceAttribute(&offered, ATTRIBUTE_FABRIC, gpu.device) != SUCCESS || offered == 0) {
      return Status(Code::notSupported, gpu.uuid + " takes no fabric handles: it is in no NVLink domain");
    }
  }
  const Expected<Allocation> allocation = import(gpu, shared);
  if (!allocation.ok()) return allocation.status;
  const Expected<Mapping> mapping = map(gpu, allocation.value, shared.bytes);
  gpu.driver->drop(allocation.value);
  if (!mapping.ok()) {
    return Status(mapping.status.code == Code::outOfMemory ? Code::outOfMemory : Code::invalidArgument, mapping.status.detail);
  }
  return add(memory, gpu, mapping.value, offset, length);
}

Expected<u32> allocateVirtual(MemoryTable& memory, const Gpu& gpu, u64 length) {
  const Driver& driver = *gpu.driver;
  const Current current(gpu);
  const AllocationProperties properties = propertiesOn(gpu);
  size_t granule = 0;
  Status status = gpu.status("cuMemGetAllocationGranularity", driver.granularity(&granule, &properties, 0));
  if (!status.ok()) return status;
  if (length > UINT64_MAX - granule) return Status(Code::invalidArgument, "length " + std::to_string(length) + " leaves the address space");
  const u64 bytes = (length + granule - 1) / granule * granule;
  Allocation allocation = 0;
  status = gpu.status("cuMemCreate of " + std::to_string(bytes) + " bytes", driver.create(&allocation, bytes, &properties, 0));
  if (!status.ok()) return status;
  const Expected<Mapping> mapping = map(gpu, allocation, bytes);
  driver.drop(allocation);
  if (!mapping.ok()) return mapping.status;
  return add(memory, gpu, mapping.value, 0, length);
}

Expected<ExportedFd> exportAllocation(const Gpu& gpu, const Segment& segment) {
  const Driver& driver = *gpu.driver;
  const Current current(gpu);
  Pointer base = 0;
  size_t bytes = 0;
  Status status = gpu.status("cuMemGetAddressRange", driver.addressRange(&base, &bytes, segment.deviceAddress));
  if (!status.ok()) return status;
  Allocation allocation = 0;
  if (const Result result = driver.retain(&allocation, reinterpret_cast<void*>(segment.deviceAddress)); result != SUCCESS) {
    return Status(Code::invalidArgument, gpu.status("segment " + std::to_string(segment.id) + " is not memory of cuMemCreate", result).detail);
  }
  ExportedFd exported{-1, segment.deviceAddress - base, bytes};
  status = gpu.status("cuMemExportToShareableHandle", driver.exportAllocation(&exported.fd, allocation, HANDLE_POSIX_FD, 0));
  driver.drop(allocation);
  if (!status.ok()) return status;
  return exported;
}

Expected<ExportedFd> exportDmabuf(const Gpu& gpu, const Segment& segment) {
  const Driver& driver = *gpu.driver;
  const Current current(gpu);
  int offered = 0;
  if (driver.deviceAttribute(&offered, ATTRIBUTE_DMA_BUF, gpu.device) != SUCCESS || offered == 0) {
    return Status(Code::notSupported, gpu.uuid + " has no dma-buf of its memory: the open kernel modules of the driver are needed");
  }
  const u64 page = static_cast<u64>(::sysconf(_SC_PAGESIZE));
  const Pointer first = segment.deviceAddress / page * page;
  const u64 end = (segment.deviceAddress + segment.length + page - 1) / page * page;
  ExportedFd exported{-1, segment.deviceAddress - first, end - first};
  Status status = gpu.status("cuMemGetHandleForAddressRange", driver.rangeHandle(&exported.fd, first, exported.bytes, RANGE_DMA_BUF, 0));
  if (!status.ok()) return status;
  return exported;
}

}  // namespace mooncake::cuda
