// Files of others, mapped: what is written is in the file, and ranges that are not are refused.
#include "memory/file_mapping.h"

#include "memory/descriptor.h"
#include "test/check.h"

#include <sys/mman.h>

#include <cstring>

namespace {

using namespace mooncake;

constexpr u64 PAGE = 4096;

Descriptor fileOf(u64 length) {
  Descriptor fd(::memfd_create("test", MFD_CLOEXEC));
  if (::ftruncate(fd.get(), static_cast<off_t>(length)) != 0) return Descriptor();
  return fd;
}

TEST(fileMapping, writesReachTheFile) {
  const Descriptor fd = fileOf(3 * PAGE);
  {
    const Expected<std::shared_ptr<Mapping>> made = mapFile(fd.get(), PAGE, PAGE + 1);
    REQUIRE(made.ok());
    std::memcpy(made.value->base() + PAGE, "x", 1);
  }
  char byte = 0;
  CHECK(::pread(fd.get(), &byte, 1, 2 * PAGE) == 1);
  CHECK(byte == 'x');
}

TEST(fileMapping, whatIsNotThereIsRefused) {
  const Descriptor fd = fileOf(2 * PAGE);
  CHECK(mapFile(fd.get(), 0, 2 * PAGE).ok());
  CHECK(!mapFile(fd.get(), 0, 2 * PAGE + 1).ok());
  CHECK(!mapFile(fd.get(), PAGE, PAGE + 1).ok());
  CHECK(!mapFile(fd.get(), 3 * PAGE, 1).ok());
  CHECK(!mapFile(fd.get(), UINT64_MAX - PAGE + 1, 2 * PAGE).ok());
  CHECK(!mapFile(fd.get(), 0, 0).ok());
  CHECK(!mapFile(fd.get(), 100, PAGE).ok());
  CHECK(!mapFile(-1, 0, PAGE).ok());
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  CHECK(!mapFile(ends[0], 0, PAGE).ok());
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
