#include "memory/dmabuf.h"

#include "memory/descriptor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace mooncake {

Expected<u32> addDmabuf(MemoryTable& memory, int fd, u64 offset, u64 length, bool writable, const PciPlace& place) {
  Descriptor own(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (own.get() < 0) return systemError("descriptor " + std::to_string(fd), errno, Code::invalidArgument);
  // A dma-buf says its size in this way, and knows no other place to seek to.
  const off_t size = lseek(own.get(), 0, SEEK_END);
  if (size < 0) return systemError("descriptor " + std::to_string(fd) + " is no dma-buf", errno, Code::invalidArgument);
  if (length == 0 || offset > static_cast<u64>(size) || length > static_cast<u64>(size) - offset) {
    return Status(Code::invalidArgument, std::to_string(length) + " bytes at " + std::to_string(offset) + " leave the dma-buf's " +
                                             std::to_string(size));
  }
  // A range of addresses that nobody else gets. NICs want the same place within a page on both sides.
  const u64 within = offset % static_cast<u64>(sysconf(_SC_PAGESIZE));
  const u64 reserved = length + within;
  void* const range = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return systemError("reserving " + std::to_string(reserved) + " addresses", errno, Code::outOfMemory);
  Segment segment;
  segment.length = length;
  segment.writable = writable;
  segment.backing = Backing::dmabuf;
  segment.dmabuf = own.get();
  segment.fdOffset = offset;
  segment.deviceAddress = reinterpret_cast<u64>(range) + within;
  segment.place = place;
  Expected<u32> added = memory.add(std::move(segment), [range, reserved] { munmap(range, reserved); });
  if (added.ok()) own.release();
  else munmap(range, reserved);
  return added;
}

}  // namespace mooncake
