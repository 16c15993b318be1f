// Memory of the process that an engine registers: mappable by peers where it is a whole segment, foreign otherwise.
#include "memory/process.h"

#include "memory/allocate.h"
#include "test/check.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace {

using namespace mooncake;

Segment over(u8* base, u64 length) {
  Segment segment;
  segment.base = base;
  segment.length = length;
  return segment;
}

TEST(processMemory, aWholeSegmentIsMappedByItsMemfd) {
  const Expected<Allocation> made = allocate(processMemory(), 10000, {});
  REQUIRE(made.ok());
  u8* const base = made.value.mapping->base();
  Segment segment = over(base, 10000);
  REQUIRE(shareProcessMemory(segment).ok());
  REQUIRE(segment.backing == Backing::memfd && segment.fd >= 0);
  // Its own descriptor: it outlives the process's.
  CHECK(processMemory().remove(made.value.id, {}).ok());
  std::memcpy(base, "seen by both", 12);
  void* const other = mmap(nullptr, 10000, PROT_READ, MAP_SHARED, segment.fd, static_cast<off_t>(segment.fdOffset));
  REQUIRE(other != MAP_FAILED);
  CHECK(std::memcmp(other, "seen by both", 12) == 0);
  munmap(other, 10000);
  close(segment.fd);
}

TEST(processMemory, partsAndOtherMemoryStayForeign) {
  const Expected<Allocation> made = allocate(processMemory(), 10000, {});
  REQUIRE(made.ok());
  u8* const base = made.value.mapping->base();
  u8 elsewhere[16];
  for (Segment segment : {over(base, 9999), over(base + 1, 9999), over(elsewhere, 16)}) {
    CHECK(shareProcessMemory(segment).ok());
    CHECK(segment.backing == Backing::foreign && segment.fd == -1);
  }
  CHECK(processMemory().remove(made.value.id, {}).ok());
  Segment gone = over(base, 10000);
  CHECK(shareProcessMemory(gone).ok());
  CHECK(gone.backing == Backing::foreign);
}

}  // namespace
