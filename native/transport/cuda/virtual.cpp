#include "transport/cuda/virtual.h"

#include "transport/cuda/memory.h"

#include <unistd.h>

#include <algorithm>

namespace mooncake::cuda {

namespace {

/** Allocations at addresses of ours, one behind the other. */
struct Mapping {
  Pointer base = 0;
  u64 bytes = 0;
  std::vector<u64> parts{};
};

void unmap(const Gpu& gpu, const Mapping& mapping) {
  const Current current(gpu);
  Pointer at = mapping.base;
  for (const u64 bytes : mapping.parts) {
    gpu.driver->unmap(at, bytes);
    at += bytes;
  }
  gpu.driver->unreserve(mapping.base, mapping.bytes);
}

/** Maps one more allocation behind those that are. The mapping keeps it: the caller drops its own handle of it. */
Status append(const Gpu& gpu, Mapping& mapping, Allocation allocation, u64 bytes) {
  const Driver& driver = *gpu.driver;
  Pointer at = mapping.base;
  for (const u64 part : mapping.parts) at += part;
  if (const Result result = driver.map(at, bytes, 0, allocation, 0); result != SUCCESS) {
    return gpu.status("cuMemMap of " + std::to_string(bytes) + " bytes", result);
  }
  mapping.parts.push_back(bytes);
  std::vector<Access> access;
  for (const int device : gpu.reachedFrom) access.push_back({{LOCATION_DEVICE, device}, ACCESS_READ_WRITE});
  return gpu.status("cuMemSetAccess", driver.setAccess(at, bytes, access.data(), access.size()));
}

Expected<Mapping> reserve(const Gpu& gpu, u64 bytes) {
  Mapping mapping{0, bytes};
  const Result result = gpu.driver->reserve(&mapping.base, bytes, 0, 0, 0);
  if (result != SUCCESS) return gpu.status("cuMemAddressReserve of " + std::to_string(bytes) + " bytes", result);
  return mapping;
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

Expected<u32> mapDevice(MemoryTable& memory, const Gpu& gpu, const std::vector<Shared>& shared, u64 offset, u64 length) {
  u64 bytes = 0;
  for (const Shared& part : shared) {
    if (part.bytes > UINT64_MAX - bytes) return Status(Code::invalidArgument, "the allocations leave the address space");
    bytes += part.bytes;
  }
  if (offset > bytes || length > bytes - offset) {
    return Status(Code::invalidArgument, std::to_string(length) + " bytes at " + std::to_string(offset) + " leave the allocation's " +
                                             std::to_string(bytes));
  }
  const Current current(gpu);
  const bool fabric = std::any_of(shared.begin(), shared.end(), [](const Shared& part) { return part.type == HANDLE_FABRIC; });
  int offered = 0;
  if (fabric && (gpu.driver->deviceAttribute(&offered, ATTRIBUTE_FABRIC, gpu.device) != SUCCESS || offered == 0)) {
    return Status(Code::notSupported, gpu.uuid + " takes no fabric handles: it is in no NVLink domain");
  }
  Expected<Mapping> mapping = reserve(gpu, bytes);
  if (!mapping.ok()) return mapping.status;
  for (const Shared& part : shared) {
    const Expected<Allocation> allocation = import(gpu, part);
    Status status = allocation.status;
    if (allocation.ok()) {
      status = append(gpu, mapping.value, allocation.value, part.bytes);
      gpu.driver->drop(allocation.value);
    }
    if (status.ok()) continue;
    unmap(gpu, mapping.value);
    return Status(status.code == Code::outOfMemory ? Code::outOfMemory : Code::invalidArgument, status.detail);
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
  Expected<Mapping> mapping = reserve(gpu, bytes);
  status = mapping.status;
  if (mapping.ok()) status = append(gpu, mapping.value, allocation, bytes);
  driver.drop(allocation);
  if (!status.ok()) {
    if (mapping.ok()) unmap(gpu, mapping.value);
    return status;
  }
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
  ExportedFd exported{-1, segment.deviceAddress - base, bytes, {}};
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
  ExportedFd exported{-1, segment.deviceAddress - first, end - first, gpu.pci};
  Status status = gpu.status("cuMemGetHandleForAddressRange", driver.rangeHandle(&exported.fd, first, exported.bytes, RANGE_DMA_BUF, 0));
  if (!status.ok()) return status;
  return exported;
}

}  // namespace mooncake::cuda
