#include "memory/process.h"

#include <fcntl.h>

#include <cerrno>
#include <climits>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace mooncake {

MemoryTable& processMemory() {
  // Never destroyed: the collector of a thread that ends late gives its memory back to it.
  static MemoryTable* const table = new MemoryTable();
  return *table;
}

Status shareProcessMemory(Segment& segment) {
  const u64 address = reinterpret_cast<u64>(segment.base);
  const SegmentRef whole = processMemory().holdAddress(address, segment.length);
  if (!whole || whole->base != segment.base || whole->length != segment.length) return {};
  const int fd = fcntl(whole->fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return systemError("F_DUPFD_CLOEXEC", errno);
  segment.backing = Backing::memfd;
  segment.fd = fd;
  segment.fdOffset = whole->fdOffset;
  segment.numaNode = whole->numaNode;
  return {};
}

bool keepFreedMemory([[maybe_unused]] u64 bytes) {
#ifdef __GLIBC__
  // The largest that it allows (HEAP_MAX_SIZE / 2 of its malloc/arena.c); larger blocks are mapped one by one.
  constexpr int mapped = 32 << 20;
  const int kept = bytes > INT_MAX ? INT_MAX : static_cast<int>(bytes);
  return mallopt(M_MMAP_THRESHOLD, mapped) == 1 && mallopt(M_TRIM_THRESHOLD, kept) == 1;
#else
  return false;
#endif
}

}  // namespace mooncake
