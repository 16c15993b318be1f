#include "memory/file.h"

#include "memory/descriptor.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace mooncake {

namespace {

/** Where the kernel does not say what direct I/O asks for: what every file system and device in use accepts.
 */
constexpr u32 ASSUMED_ALIGNMENT = 4096;
/** A network file system's preferred transfer size is no block size. */
constexpr u64 LARGEST_BLOCK = 64 << 10;
constexpr u64 LONGEST = u64{1} << 62;

int openRetrying(const char* path, int flags) {
  int fd = -1;
  do {
    fd = ::open(path, flags | O_CLOEXEC, 0600);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

struct DirectAlignment {
  u32 offset = ASSUMED_ALIGNMENT;
  u32 memory = ASSUMED_ALIGNMENT;
};

/** What statx says of direct I/O (STATX_DIOALIGN, Linux 6.1); zeros: the file has none. */
DirectAlignment askAlignment(int fd) {
  constexpr u32 DIRECT_ALIGNMENT = 0x2000; // STATX_DIOALIGN
  // struct statx, which older headers have without these fields: stx_mask at byte 0, stx_dio_mem_align at
  // 152, then stx_dio_offset_align.
  alignas(8) std::array<u8, 256> answer{};
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, DIRECT_ALIGNMENT, answer.data()) != 0) return {};
  u32 mask = 0;
  std::memcpy(&mask, answer.data(), sizeof mask);
  if (!(mask & DIRECT_ALIGNMENT)) return {};
  DirectAlignment found;
  std::memcpy(&found.memory, answer.data() + 152, sizeof found.memory);
  std::memcpy(&found.offset, answer.data() + 156, sizeof found.offset);
  return found;
}

bool powerOfTwo(u64 value) { return value != 0 && (value & (value - 1)) == 0; }

/** Opening with O_DIRECT proves nothing on some file systems; reading a granule does. */
bool reads(int fd, u64 granule) {
  void* buffer = std::aligned_alloc(std::max<u64>(granule, ASSUMED_ALIGNMENT), granule);
  if (!buffer) return false;
  const ssize_t moved = pread(fd, buffer, granule, 0);
  std::free(buffer);
  return moved >= 0;
}

/** The same file with O_DIRECT, and what that asks for; none where the file system cannot. */
Descriptor openDirect(const std::string& path, int access, const struct stat& file, DirectAccess& found) {
  Descriptor fd(openRetrying(path.c_str(), access | O_DIRECT));
  struct stat same {};
  if (fd.empty() || fstat(fd.get(), &same) != 0) return Descriptor();
  if (same.st_dev != file.st_dev || same.st_ino != file.st_ino) return Descriptor();
  const DirectAlignment alignment = askAlignment(fd.get());
  if (!powerOfTwo(alignment.offset) || !powerOfTwo(alignment.memory)) return Descriptor();
  const auto page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  const auto block = static_cast<u64>(file.st_blksize);
  u64 granule = std::max<u64>(alignment.offset, page);
  if (powerOfTwo(block) && block <= LARGEST_BLOCK) granule = std::max(granule, block);
  if (!reads(fd.get(), granule)) return Descriptor();
  found.granule = static_cast<u32>(granule);
  found.memoryAlignment = alignment.memory;
  return fd;
}

/** Makes the file `length` bytes long, with their blocks allocated where the file system can. */
Status extend(int fd, const std::string& path, u64 length) {
  int result = 0;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
    result = ftruncate(fd, static_cast<off_t>(length));
  if (result != 0) return systemError("allocate " + std::to_string(length) + " bytes of " + path, errno);
  return {};
}

} // namespace

Expected<u32> openFile(MemoryTable& memory, const std::string& path, const FileOptions& options) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return Status(Code::invalidArgument, "path must name a file, got " + (path.empty() ? "none" : path));
  }
  if (options.length > LONGEST) {
    return Status(Code::invalidArgument,
                  "length " + std::to_string(options.length) + " of " + path + " exceeds 2^62");
  }
  const int access = options.writable ? O_RDWR : O_RDONLY;
  // Nonblocking, since a pipe without a writer would hold up the caller for good.
  bool made = false;
  Descriptor fd(openRetrying(path.c_str(), access | O_NONBLOCK));
  if (fd.empty() && errno == ENOENT && options.writable && options.length > 0) {
    fd = Descriptor(openRetrying(path.c_str(), access | O_CREAT | O_EXCL));
    made = !fd.empty();
  }
  if (fd.empty()) return systemError("open " + path, errno);

  struct stat file {};
  if (fstat(fd.get(), &file) != 0) return systemError("stat " + path, errno);
  if (!S_ISREG(file.st_mode) && !S_ISBLK(file.st_mode)) {
    return Status(Code::invalidArgument, path + " is neither a file nor a block device");
  }
  const off_t end = lseek(fd.get(), 0, SEEK_END);
  if (end < 0) return systemError("seek in " + path, errno);
  const auto size = static_cast<u64>(end);
  const u64 length = options.length == 0 ? size : options.length;
  if (length == 0) return Status(Code::invalidArgument, path + " is empty, and no length was given");
  if (length > size) {
    if (!options.writable || !S_ISREG(file.st_mode)) {
      return Status(Code::invalidArgument,
                    path + " has " + std::to_string(size) + " bytes, not " + std::to_string(length));
    }
    Status extended = extend(fd.get(), path, length);
    if (!extended.ok()) {
      if (made) ::unlink(path.c_str());
      return extended;
    }
  }
  // Requests on a nonblocking descriptor fail instead of waiting.
  if (fcntl(fd.get(), F_SETFL, 0) != 0) return systemError("fcntl " + path, errno);
  Descriptor directFd;
  Segment segment;
  segment.length = length;
  segment.writable = options.writable;
  segment.backing = Backing::file;
  segment.fd = fd.get();
  segment.path = path;
  if (options.direct) directFd = openDirect(path, access, file, segment.direct);
  segment.direct.fd = directFd.get();
  // What goes through the page cache are edges: reading ahead would fill it with what is moved directly.
  if (!directFd.empty()) posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);

  // The table closes the first descriptor itself.
  Expected<u32> added = memory.add(std::move(segment), [other = directFd.get()] {
    if (other >= 0) ::close(other);
  });
  if (!added.ok()) return added;
  fd.release();
  directFd.release();
  return added;
}

} // namespace mooncake
