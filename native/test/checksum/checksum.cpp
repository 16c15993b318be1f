// Every form that this machine can run against the definition of the sum, bit by bit.
#include "checksum/copy.h"
#include "checksum/crc64.h"
#include "checksum/forms.h"
#include "test/check.h"

#include <cstring>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

namespace {

using namespace mooncake;

/** The definition: one bit of the message at a time, divided by the polynomial. */
u64 definition(const u8* data, u64 length, u64 crc) {
  for (u64 i = 0; i < length; i++) {
    crc ^= u64{data[i]} << 56;
    for (int bit = 0; bit < 8; bit++) crc = (crc << 1) ^ ((crc >> 63) != 0 ? 0x42F0E1EBA9EA3693 : 0);
  }
  return crc;
}

std::vector<u8> randomBytes(std::mt19937_64& random, u64 length) {
  std::vector<u8> bytes(length);
  for (u8& byte : bytes) byte = static_cast<u8>(random());
  return bytes;
}

constexpr u64 GUARD = 96;

/** What a copy must leave: source in [at, at + length) of a target filled with 0xa5, and nothing else touched. */
bool copiedExactly(const std::vector<u8>& target, u64 at, const u8* source, u64 length) {
  for (u64 i = 0; i < at; i++) {
    if (target[i] != 0xa5) return false;
  }
  for (u64 i = at + length; i < target.size(); i++) {
    if (target[i] != 0xa5) return false;
  }
  return length == 0 || std::memcmp(target.data() + at, source, length) == 0;
}

/** One length at one pair of alignments, by all doors of a form. */
void checkForm(const checksum::Form& form, const u8* source, u64 length, u64 at, u64 crc, u64 expected) {
  CHECK(form.sum(source, length, crc) == expected);
  for (const auto copy : {form.copy, form.stream}) {
    std::vector<u8> target(at + length + GUARD, 0xa5);
    CHECK(copy(target.data() + at, source, length, crc) == expected);
    CHECK(copiedExactly(target, at, source, length));
  }
  std::vector<u8> target(at + length + GUARD, 0xa5);
  CHECK(form.streamTwice(target.data() + at, source, length));
  CHECK(copiedExactly(target, at, source, length));
}

TEST(checksum, checkValueOfTheCatalogue) {
  const auto* digits = reinterpret_cast<const u8*>("123456789");
  CHECK(definition(digits, 9, 0) == 0x6c40df5f0b497347);
  CHECK(crc64(digits, 9, 0) == 0x6c40df5f0b497347);
  for (const checksum::Form& form : checksum::forms()) CHECK(form.sum(digits, 9, 0) == 0x6c40df5f0b497347);
}

TEST(checksum, theTableIsEverywhereAndTheBestIsUsed) {
  REQUIRE(!checksum::forms().empty());
  CHECK(std::strcmp(checksum::forms().back().name, "table") == 0);
  CHECK(std::strcmp(checksum::forms().front().name, checksumKind()) == 0);
}

TEST(checksum, everyLengthUpTo2100) {
  std::mt19937_64 random(1);
  const std::vector<u8> bytes = randomBytes(random, 2100 + 64);
  for (u64 length = 0; length <= 2100; length++) {
    const u8* source = bytes.data() + length % 64;
    const u64 crc = random();
    const u64 expected = definition(source, length, crc);
    for (const checksum::Form& form : checksum::forms()) {
      checkForm(form, source, length, GUARD + length / 64 % 64, crc, expected);
    }
  }
}

TEST(checksum, randomLengthsAlignmentsAndContinuations) {
  std::mt19937_64 random(2);
  const std::vector<u8> bytes = randomBytes(random, (1 << 20) + 64);
  for (int round = 0; round < 24; round++) {
    const u64 length = random() % (1 << 20);
    const u8* source = bytes.data() + random() % 64;
    const u64 crc = random();
    const u64 cut = length == 0 ? 0 : random() % length;
    const u64 expected = definition(source, length, crc);
    for (const checksum::Form& form : checksum::forms()) {
      checkForm(form, source, length, GUARD + random() % 64, crc, expected);
      CHECK(form.sum(source + cut, length - cut, form.sum(source, cut, crc)) == expected);
    }
  }
}

TEST(checksum, everyBitCounts) {
  std::mt19937_64 random(3);
  std::vector<u8> bytes = randomBytes(random, 1300);
  for (const checksum::Form& form : checksum::forms()) {
    const u64 whole = form.sum(bytes.data(), bytes.size(), 0);
    for (u64 bit = 0; bit < 8 * bytes.size(); bit++) {
      bytes[bit / 8] ^= static_cast<u8>(1 << (bit % 8));
      CHECK(form.sum(bytes.data(), bytes.size(), 0) != whole);
      bytes[bit / 8] ^= static_cast<u8>(1 << (bit % 8));
    }
  }
}

TEST(checksum, copiesOfEveryStore) {
  std::mt19937_64 random(4);
  const u64 large = streamingThreshold() + 4321;
  const std::vector<u8> bytes = randomBytes(random, large + 64);
  for (const u64 length : {u64{0}, u64{1}, u64{63}, u64{64}, u64{65}, u64{4097}, u64{70000}, large}) {
    const u8* source = bytes.data() + random() % 64;
    const u64 expected = checksum::tableForm.sum(source, length, 7);
    for (const Store store : {Store::cached, Store::streaming, Store::automatic}) {
      const u64 at = GUARD + random() % 64;
      std::vector<u8> target(at + length + GUARD, 0xa5);
      copyBytes(target.data() + at, source, length, store);
      CHECK(copiedExactly(target, at, source, length));
      std::fill(target.begin(), target.end(), u8{0xa5});
      CHECK(copyCrc64(target.data() + at, source, length, 7, store) == expected);
      CHECK(copiedExactly(target, at, source, length));
      std::fill(target.begin(), target.end(), u8{0xa5});
      CHECK(copyUnchanged(target.data() + at, source, length, store));
      CHECK(copiedExactly(target, at, source, length));
    }
  }
}

/** Each page of the destination but the first is the source's page before it: what was read there changes afterwards. */
TEST(checksum, aSourceThatChangesMeanwhileShows) {
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  constexpr u64 pages = 40;
  const int fd = memfd_create("test", MFD_CLOEXEC);
  REQUIRE(fd >= 0 && ftruncate(fd, static_cast<off_t>((pages + 1) * page)) == 0);
  const auto map = [&](u64 from) {
    void* const at = mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(from));
    REQUIRE(at != MAP_FAILED);
    return static_cast<u8*>(at);
  };
  u8* const source = map(page);
  u8* const target = map(0);
  std::mt19937_64 random(5);
  const std::vector<u8> bytes = randomBytes(random, pages * page);
  for (const u64 length : {page + 100, 2 * page, 4 * page, 5 * page - 3, 8 * page, 17 * page, 39 * page + 77, 40 * page}) {
    for (const u64 skew : {0, 5}) {
      const u64 whole = length - skew;
      for (const checksum::Form& form : checksum::forms()) {
        std::memcpy(source, bytes.data(), bytes.size());
        CHECK(!form.streamTwice(target + skew, source + skew, whole));
      }
      for (const Store store : {Store::cached, Store::streaming}) {
        std::memcpy(source, bytes.data(), bytes.size());
        CHECK(!copyUnchanged(target + skew, source + skew, whole, store));
      }
    }
  }
  munmap(source, pages * page);
  munmap(target, pages * page);
  close(fd);
}

}  // namespace
