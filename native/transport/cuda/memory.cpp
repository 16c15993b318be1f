#include "transport/cuda/memory.h"

namespace mooncake::cuda {

namespace {

/** Whether the allocation around `address` has so many bytes from there. */
Status within(const Gpu& gpu, Pointer address, u64 length) {
  Pointer base = 0;
  size_t bytes = 0;
  if (const Result result = gpu.driver->addressRange(&base, &bytes, address); result != SUCCESS) {
    return {Code::invalidArgument, gpu.status("address " + std::to_string(address) + " is no memory of this GPU", result).detail};
  }
  const u64 left = base + bytes - address;
  if (length <= left) return {};
  return {Code::invalidArgument, std::to_string(length) + " bytes leave the allocation on " + gpu.uuid + ", which has " +
                                     std::to_string(left) + " from there"};
}

}  // namespace

Segment segmentOf(const Gpu& gpu, Pointer address, u64 length) {
  Segment segment;
  segment.length = length;
  segment.backing = Backing::device;
  segment.device = gpu.ordinal;
  segment.deviceAddress = address;
  return segment;
}

std::string Imports::key(const Gpu& gpu, const IpcHandle& handle) {
  return std::to_string(gpu.ordinal) + ":" + std::string(reinterpret_cast<const char*>(handle.bytes), sizeof handle.bytes);
}

Expected<Pointer> Imports::open(const Gpu& gpu, const IpcHandle& handle) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[key(gpu, handle)];
  if (entry.uses == 0) {
    const Current current(gpu);
    const Result result = gpu.driver->ipcOpen(&entry.base, handle, IPC_LAZY_PEER_ACCESS);
    if (result != SUCCESS) {
      entries_.erase(key(gpu, handle));
      return Status(Code::invalidArgument, gpu.status("cuIpcOpenMemHandle", result).detail);
    }
  }
  entry.uses++;
  return entry.base;
}

void Imports::close(const Gpu& gpu, const IpcHandle& handle) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key(gpu, handle));
  if (found == entries_.end() || --found->second.uses > 0) return;
  const Current current(gpu);
  gpu.driver->ipcClose(found->second.base);
  entries_.erase(found);
}

Expected<u32> allocateDevice(MemoryTable& memory, const Gpu& gpu, u64 length) {
  const Current current(gpu);
  Pointer address = 0;
  if (const Status status = gpu.status("cuMemAlloc of " + std::to_string(length) + " bytes",
                                       gpu.driver->allocate(&address, length));
      !status.ok()) {
    return status;
  }
  const auto release = [&gpu, address] {
    const Current again(gpu);
    gpu.driver->free(address);
  };
  Expected<u32> id = memory.add(segmentOf(gpu, address, length), release);
  if (!id.ok()) release();
  return id;
}

Expected<u32> registerDevice(MemoryTable& memory, const Gpu& gpu, Pointer address, u64 length) {
  const Current current(gpu);
  if (Status status = within(gpu, address, length); !status.ok()) return status;
  return memory.add(segmentOf(gpu, address, length), {});
}

Expected<u32> importDevice(MemoryTable& memory, std::shared_ptr<Imports> imports, const Gpu& gpu, const IpcHandle& handle,
                           u64 offset, u64 length) {
  const Expected<Pointer> base = imports->open(gpu, handle);
  if (!base.ok()) return base.status;
  const auto release = [imports, &gpu, handle] { imports->close(gpu, handle); };
  const Current current(gpu);
  Status status = within(gpu, base.value, offset);
  if (status.ok()) status = within(gpu, base.value + offset, length);
  if (!status.ok()) {
    release();
    return status;
  }
  Expected<u32> id = memory.add(segmentOf(gpu, base.value + offset, length), release);
  if (!id.ok()) release();
  return id;
}

Expected<Exported> exportDevice(const Gpu& gpu, const Segment& segment) {
  const Current current(gpu);
  Exported exported;
  Pointer base = 0;
  size_t bytes = 0;
  Status status = gpu.status("cuMemGetAddressRange", gpu.driver->addressRange(&base, &bytes, segment.deviceAddress));
  if (status.ok()) status = gpu.status("cuIpcGetMemHandle", gpu.driver->ipcExport(&exported.handle, base));
  if (!status.ok()) return status;
  exported.offset = segment.deviceAddress - base;
  return exported;
}

}  // namespace mooncake::cuda
