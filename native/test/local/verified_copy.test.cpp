#include "transport/verified_copy.h"

#include "test/check.h"

#include <cstring>
#include <random>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

using namespace mooncake;

namespace {

std::vector<u8> noise(u64 length, u64 seed) {
  std::vector<u8> bytes(length);
  std::mt19937_64 random(seed);
  for (u8& byte : bytes) byte = static_cast<u8>(random());
  return bytes;
}

}  // namespace

TEST(verifiedCopy, isMemmove) {
  std::mt19937_64 random(3);
  std::vector<u64> lengths = {1, 63, 64, 511, 512, 513, 2047, 8191, 8192, 8193, 16383, 16384, 16385, 32768, 40000, 100000, 1 << 20};
  for (int i = 0; i < 200; i++) lengths.push_back(1 + random() % 70000);
  for (const u64 length : lengths) {
    const std::vector<u8> source = noise(length, length);
    const u64 skew = random() % 64;
    std::vector<u8> target(length + 128, 0xee);
    CHECK(copyVerified(&target[skew], source.data(), length));
    CHECK(std::memcmp(&target[skew], source.data(), length) == 0);
    for (u64 i = 0; i < target.size(); i++) {
      if (i < skew || i >= skew + length) CHECK(target[i] == 0xee);
    }
  }
}

TEST(verifiedCopy, rangesThatOverlap) {
  for (const int shift : {-4096, -100, -1, 0, 1, 100, 4096}) {
    std::vector<u8> bytes = noise(60000, 9);
    std::vector<u8> expected = bytes;
    std::memmove(&expected[10000 + shift], &expected[10000], 40000);
    CHECK(copyVerified(&bytes[10000 + shift], &bytes[10000], 40000));
    CHECK(bytes == expected);
  }
}

/** Two pages of the destination are the same memory: the second one's bytes replace the first one's. */
TEST(verifiedCopy, findsDestinationThatDoesNotKeepItsBytes) {
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  const u64 length = 16 * page;
  const int fd = memfd_create("test", MFD_CLOEXEC);
  REQUIRE(fd >= 0 && ftruncate(fd, static_cast<off_t>(length)) == 0);
  u8* const target = static_cast<u8*>(mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(target != MAP_FAILED);
  std::vector<u8> source = noise(length, 5);
  CHECK(copyVerified(target, source.data(), length));
  for (const u64 alias : {u64{1}, u64{8}, u64{15}}) {
    void* const place = target + alias * page;
    const off_t previous = static_cast<off_t>((alias - 1) * page);
    REQUIRE(mmap(place, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, previous) == place);
    CHECK(!copyVerified(target, source.data(), length));
    // One byte of each page differs.
    std::memset(source.data(), 0, length);
    source[alias * page + 7] = 1;
    CHECK(!copyVerified(target, source.data(), length));
    REQUIRE(mmap(place, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, previous + static_cast<off_t>(page)) == place);
    source = noise(length, alias);
    CHECK(copyVerified(target, source.data(), length));
  }
  munmap(target, length);
  close(fd);
}

/** The second page of the destination is the first one of the source, which so changes when it has been copied. */
TEST(verifiedCopy, aSourceThatChangesMeanwhileIsNoFault) {
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  const int fd = memfd_create("test", MFD_CLOEXEC);
  REQUIRE(fd >= 0 && ftruncate(fd, static_cast<off_t>(3 * page)) == 0);
  const auto map = [&](u64 from) {
    return static_cast<u8*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(from)));
  };
  u8* const source = map(page);
  u8* const target = map(0);
  REQUIRE(source != MAP_FAILED && target != MAP_FAILED);
  const std::vector<u8> bytes = noise(2 * page, 11);
  std::memcpy(source, bytes.data(), bytes.size());
  CHECK(copyVerified(target, source, 2 * page));
  CHECK(std::memcmp(target + page, &bytes[page], page) == 0);
  munmap(source, 2 * page);
  munmap(target, 2 * page);
  close(fd);
}
