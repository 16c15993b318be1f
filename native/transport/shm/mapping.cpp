#include "transport/shm/mapping.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <cerrno>

namespace mooncake::shm {

namespace {

constexpr long HUGETLB_MAGIC = 0x958458f6;  // HUGETLBFS_MAGIC of linux/magic.h

/** Mappings of a huge-page file begin and end at its pages. */
u64 pageOf(int fd) {
  struct statfs status{};
  if (::fstatfs(fd, &status) == 0 && static_cast<long>(status.f_type) == HUGETLB_MAGIC) {
    return static_cast<u64>(status.f_bsize);
  }
  return static_cast<u64>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  reset();
  data_ = std::exchange(other.data_, nullptr);
  length_ = std::exchange(other.length_, 0);
  base_ = std::exchange(other.base_, nullptr);
  mapped_ = std::exchange(other.mapped_, 0);
  return *this;
}

void Mapping::reset() {
  if (base_ != nullptr) ::munmap(base_, mapped_);
  data_ = base_ = nullptr;
  length_ = mapped_ = 0;
}

Expected<Mapping> Mapping::open(int fd, u64 offset, u64 length, bool writable) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return systemError("the descriptor is no memfd", errno);
  if ((seals & F_SEAL_SHRINK) == 0) return Status(Code::notSupported, "the memfd could be shrunk under us (no F_SEAL_SHRINK)");
  struct stat status{};
  if (::fstat(fd, &status) != 0) return systemError("fstat", errno);
  const u64 size = static_cast<u64>(status.st_size);
  if (length == 0 || offset > size || length > size - offset) {
    return Status(Code::protocol, "a memfd of " + std::to_string(size) + " bytes for " + std::to_string(length) + " at " +
                                      std::to_string(offset));
  }
  const u64 page = pageOf(fd);
  const u64 start = offset - offset % page;
  const u64 end = offset + length;
  Mapping mapping;
  mapping.mapped_ = (end + page - 1) / page * page - start;
  void* const base = ::mmap(nullptr, mapping.mapped_, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd,
                            static_cast<off_t>(start));
  if (base == MAP_FAILED) return systemError("mmap of " + std::to_string(mapping.mapped_) + " bytes", errno);
  mapping.base_ = static_cast<u8*>(base);
  mapping.data_ = mapping.base_ + (offset - start);
  mapping.length_ = length;
  return mapping;
}

Expected<Mapping> Mapping::create(u64 length, Fd& fd) {
  fd = Fd(static_cast<int>(::syscall(SYS_memfd_create, "mooncake-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return systemError("memfd_create", errno);
  if (::ftruncate(fd.get(), static_cast<off_t>(length)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return systemError("memfd of " + std::to_string(length) + " bytes", errno);
  }
  return open(fd.get(), 0, length, true);
}

}  // namespace mooncake::shm
