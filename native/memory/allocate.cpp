#include "memory/allocate.h"

#include "memory/descriptor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace mooncake {

namespace {

constexpr u64 HUGE = 2 << 20;
// From linux/mempolicy.h and linux/memfd.h, which not every C library's headers have.
constexpr int POLICY_BIND = 2;
constexpr unsigned POLICY_STRICT_MOVE = 1 | 2;
constexpr unsigned HUGE_2MB = 21U << 26;
constexpr u64 NODES = 1024;

u64 roundUp(u64 value, u64 unit) { return (value + unit - 1) / unit * unit; }

struct Mapped {
  int fd = -1;
  std::shared_ptr<Mapping> mapping;
};

Expected<Mapped> mapMemfd(u64 length, unsigned flags) {
  Descriptor fd(memfd_create("mooncake", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  if (fd.get() < 0) return systemError("memfd_create", errno);
  if (ftruncate(fd.get(), static_cast<off_t>(length)) != 0) {
    return systemError("memfd of " + std::to_string(length) + " bytes", errno, Code::outOfMemory);
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) return systemError("F_ADD_SEALS", errno);
  // Huge pages are reserved here or refused: touching them later would be answered by SIGBUS.
  void* const base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) {
    return systemError("mmap of " + std::to_string(length) + " bytes", errno, Code::outOfMemory);
  }
  auto mapping = std::make_shared<Mapping>(static_cast<u8*>(base), length);
  return Mapped{fd.release(), std::move(mapping)};
}

Status bindTo(const Mapping& mapping, int node) {
  std::array<unsigned long, NODES / (8 * sizeof(unsigned long))> nodes{};
  constexpr u64 bits = 8 * sizeof(unsigned long);
  nodes[static_cast<u64>(node) / bits] |= 1UL << (static_cast<u64>(node) % bits);
  if (syscall(SYS_mbind, mapping.base(), mapping.length(), POLICY_BIND, nodes.data(), NODES + 1, POLICY_STRICT_MOVE) == 0) {
    return {};
  }
  return systemError("mbind to NUMA node " + std::to_string(node), errno);
}

}  // namespace

Mapping::~Mapping() { munmap(base_, length_); }

Expected<Allocation> allocate(MemoryTable& memory, u64 length, const AllocateOptions& options) {
  if (length == 0 || length > u64{1} << 46) {
    return Status(Code::invalidArgument, "length " + std::to_string(length) + " is not from 1 to 2^46");
  }
  if (options.numaNode < -1 || options.numaNode >= static_cast<int>(NODES)) {
    return Status(Code::invalidArgument, "numaNode " + std::to_string(options.numaNode) + " is not from -1 to 1023");
  }
  Expected<Mapped> mapped = Status(Code::notSupported, "");
  if (options.hugePages && length >= HUGE) mapped = mapMemfd(roundUp(length, HUGE), MFD_HUGETLB | HUGE_2MB);
  if (!mapped.ok()) {
    const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
    mapped = mapMemfd(roundUp(length, page), 0);
    if (!mapped.ok()) return mapped.status;
    // Advice: shared memory has huge pages only where the administrator allows them.
    if (options.hugePages) madvise(mapped.value.mapping->base(), mapped.value.mapping->length(), MADV_HUGEPAGE);
  }
  Descriptor fd(mapped.value.fd);
  const std::shared_ptr<Mapping> mapping = mapped.value.mapping;
  if (options.numaNode >= 0) {
    if (Status status = bindTo(*mapping, options.numaNode); !status.ok()) return status;
  }
  Segment segment;
  segment.base = mapping->base();
  segment.length = length;
  segment.writable = options.writable;
  segment.backing = Backing::memfd;
  segment.fd = fd.get();
  segment.numaNode = options.numaNode;
  Expected<u32> added = memory.add(std::move(segment), [mapping] {});
  if (!added.ok()) return added.status;
  fd.release();
  return Allocation{added.value, mapping};
}

}  // namespace mooncake
