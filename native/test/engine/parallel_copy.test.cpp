// Copies that several threads make together: every byte arrives once, and each sum is that of its pieces in their order.
#include "checksum/crc64.h"
#include "test/check.h"
#include "transport/copy_pool.h"
#include "transport/parallel_copy.h"

#include <algorithm>
#include <atomic>
#include <thread>

using namespace mooncake;

namespace {

/** Threads of the test's own, which end with it: tests behind it fork, and an emulated processor forks badly with others about. */
constexpr u32 HELPERS = 3;
constexpr std::chrono::microseconds SPIN{50};

std::vector<u8> randomBytes(u64 length, u32 seed) {
  std::vector<u8> bytes(length);
  for (u8& byte : bytes) byte = static_cast<u8>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

/** `objects` of `bytes` each, in pieces of `piece`, piece by piece of all objects in turn as layers are. */
bool copiesRight(CopyPool& pool, u32 objects, u64 bytes, u64 piece, Store store) {
  const std::vector<u8> source = randomBytes(objects * bytes, objects);
  std::vector<u8> target(source.size());
  std::vector<u64> sums(objects, 7);
  std::vector<CopyPiece> pieces;
  for (u64 at = 0; at < bytes; at += piece) {
    for (u32 i = 0; i < objects; i++) {
      const u64 offset = i * bytes + at;
      // One in five is not summed.
      const u32 sum = i % 5 == 4 ? NO_SUM : i;
      pieces.push_back({target.data() + offset, source.data() + offset, std::min(piece, bytes - at), sum, store});
    }
  }
  copyPieces(std::move(pieces), sums, &pool);
  bool right = target == source;
  for (u32 i = 0; i < objects; i++) {
    right &= sums[i] == (i % 5 == 4 ? 7 : crc64(source.data() + i * bytes, bytes, 7));
  }
  return right;
}

}  // namespace

TEST(parallel, copies_and_sums_are_those_of_one_thread) {
  CopyPool pool(HELPERS, SPIN);
  CHECK(copiesRight(pool, 64, 96'000, 16'384, Store::streaming));
  CHECK(copiesRight(pool, 64, 96'000, 1'000, Store::cached));
  CHECK(copiesRight(pool, 3, 1 << 20, 1 << 18, Store::streaming));
  CHECK(copiesRight(pool, 1, 4 << 20, 1 << 20, Store::streaming));
  CHECK(copiesRight(pool, 7, 1, 1, Store::cached));
  copyPieces({}, {}, &pool);
}

TEST(parallel, callers_do_not_wait_for_each_other) {
  CopyPool pool(HELPERS, SPIN);
  std::atomic<u32> right{0};
  std::vector<std::thread> callers;
  for (u32 i = 0; i < 4; i++) {
    callers.emplace_back([&right, &pool] {
      for (u32 round = 0; round < 20; round++) right += copiesRight(pool, 40, 65'536, 32'768, Store::cached) ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(right == 80);
}

TEST(parallel, ranges_of_a_piece_may_overlap) {
  CopyPool pool(HELPERS, SPIN);
  std::vector<u8> bytes = randomBytes(2 << 20, 3);
  const std::vector<u8> before = bytes;
  std::vector<u64> sums(1, 0);
  copyPieces({{bytes.data() + 100, bytes.data(), 1 << 20, 0, Store::streaming}}, sums, &pool);
  CHECK(std::equal(before.begin(), before.begin() + (1 << 20), bytes.begin() + 100));
  CHECK(sums[0] == crc64(before.data(), 1 << 20, 0));
}
