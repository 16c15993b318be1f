#include "memory/file_mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace mooncake {

Expected<std::shared_ptr<Mapping>> mapFile(int fd, u64 offset, u64 length) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return systemError("fstat", errno);
  if (!S_ISREG(status.st_mode)) return Status(Code::invalidArgument, "it is no file");
  const u64 size = static_cast<u64>(status.st_size);
  if (offset % static_cast<u64>(::sysconf(_SC_PAGESIZE)) != 0) {
    return Status(Code::invalidArgument, "offset " + std::to_string(offset) + " is no page's start");
  }
  if (length == 0 || offset > size || length > size - offset) {
    return Status(Code::invalidArgument, std::to_string(length) + " bytes at " + std::to_string(offset) + " of a file of " +
                                             std::to_string(size));
  }
  void* const base = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (base == MAP_FAILED) return systemError("mmap of " + std::to_string(length) + " bytes", errno);
  return std::make_shared<Mapping>(static_cast<u8*>(base), length);
}

}  // namespace mooncake
