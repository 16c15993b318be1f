// Memory of GPUs as segments: allocated here, another library's of this process, or another process's by its IPC handle.
// A handle names a whole allocation; it is opened once, however many segments lie in it, and closed with the last.
#pragma once

#include "memory/segment.h"
#include "transport/cuda/gpu.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace mooncake::cuda {

/** Opened IPC handles, by GPU and handle. Outlives its segments. */
class Imports {
 public:
  /** Where the allocation lies here. invalidArgument: not a handle that this GPU's driver opens (memory of cuMemCreate has
      none; a handle of this process is refused). */
  Expected<Pointer> open(const Gpu& gpu, const IpcHandle& handle);
  void close(const Gpu& gpu, const IpcHandle& handle);

 private:
  struct Entry {
    Pointer base = 0;
    u32 uses = 0;
  };
  static std::string key(const Gpu& gpu, const IpcHandle& handle);

  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

/** What every segment of a GPU's memory has. */
Segment segmentOf(const Gpu& gpu, Pointer address, u64 length);

/** Memory of our own; freed when the segment is released. Not zeroed. */
Expected<u32> allocateDevice(MemoryTable& memory, const Gpu& gpu, u64 length);

/** `[address, address + length)` is somebody else's, and stays theirs. */
Expected<u32> registerDevice(MemoryTable& memory, const Gpu& gpu, Pointer address, u64 length);

/** `length` bytes at `offset` of another process's allocation. */
Expected<u32> importDevice(MemoryTable& memory, std::shared_ptr<Imports> imports, const Gpu& gpu, const IpcHandle& handle,
                           u64 offset, u64 length);

/** What names the allocation that a segment lies in to other processes, and where it lies in it. */
struct Exported {
  IpcHandle handle{};
  u64 offset = 0;
};
Expected<Exported> exportDevice(const Gpu& gpu, const Segment& segment);

}  // namespace mooncake::cuda
