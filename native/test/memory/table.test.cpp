#include "memory/segment.h"

#include "memory/allocate.h"
#include "test/check.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

using namespace mooncake;

namespace {

Segment at(u64 base, u64 length, bool writable = true) {
  Segment segment;
  segment.base = reinterpret_cast<u8*>(base);
  segment.length = length;
  segment.writable = writable;
  return segment;
}

}  // namespace

TEST(memory, removalWaitsForHolds) {
  MemoryTable table;
  std::string order;
  const u32 id = table.add(at(4096, 10), [&] { order += "release "; }).value;
  SegmentRef first = table.hold(id);
  SegmentRef second = table.holdAddress(4100, 6);
  REQUIRE(first && second);
  CHECK(first->id == id && second->id == id);
  CHECK(table.remove(id, [&] { order += "released"; }).ok());
  CHECK(!table.hold(id) && !table.holdAddress(4100, 1));
  CHECK(table.remove(id, {}).code == Code::segment);
  CHECK(table.list().empty());
  SegmentRef moved = std::move(first);
  second.reset();
  CHECK(order.empty());
  CHECK(moved->length == 10);
  moved.reset();
  CHECK(order == "release released");
}

TEST(memory, numbersAreNeverUsedTwice) {
  MemoryTable table;
  u32 last = 0;
  for (int i = 0; i < 1000; i++) {
    const u32 id = table.add(at(4096, 10), {}).value;
    CHECK(id > last);
    last = id;
    CHECK(table.remove(id, {}).ok());
  }
}

TEST(memory, refusesRangesThatAreNone) {
  MemoryTable table;
  CHECK(table.add(at(4096, 0), {}).status.code == Code::invalidArgument);
  CHECK(table.add(at(~u64{0} - 5, 10), {}).status.code == Code::invalidArgument);
  CHECK(table.add(at(0, 10), {}).status.code == Code::invalidArgument);
  CHECK(table.list().empty());
  CHECK(!table.holdAddress(~u64{0} - 5, 10));
}

/** Overlapping registrations against a search of all of them. */
TEST(memory, addressesAreFoundAsBySearch) {
  MemoryTable table;
  std::mt19937_64 random(5);
  std::vector<Segment> naive;
  for (int step = 0; step < 2000; step++) {
    if (naive.size() < 40 && random() % 2 == 0) {
      Segment segment = at(1000 + random() % 500, 1 + random() % (random() % 2 ? 20 : 300), random() % 2);
      segment.id = table.add(segment, {}).value;
      naive.push_back(segment);
    } else if (!naive.empty() && random() % 2 == 0) {
      const size_t which = random() % naive.size();
      REQUIRE(table.remove(naive[which].id, {}).ok());
      naive.erase(naive.begin() + static_cast<long>(which));
    }
    for (int query = 0; query < 20; query++) {
      const u64 address = 990 + random() % 900;
      const u64 length = random() % 50;
      const bool forWriting = random() % 2;
      const auto contains = [&](const Segment& segment) {
        const u64 base = reinterpret_cast<u64>(segment.base);
        return length > 0 && base <= address && address + length <= base + segment.length && (segment.writable || !forWriting);
      };
      const SegmentRef found = table.holdAddress(address, length, forWriting);
      CHECK(static_cast<bool>(found) == std::any_of(naive.begin(), naive.end(), contains));
      if (found) CHECK(contains(*found));
    }
  }
}

TEST(memory, watchersHearOfRemovalsBeforeTheRelease) {
  MemoryTable table;
  std::string order;
  const u64 watcher = table.watch([&](const Segment& segment) { order += "gone " + std::to_string(segment.length) + " "; });
  u32 id = table.add(at(4096, 10), [&] { order += "release "; }).value;
  CHECK(table.remove(id, {}).ok());
  table.unwatch(watcher);
  id = table.add(at(4096, 11), [&] { order += "release"; }).value;
  CHECK(table.remove(id, {}).ok());
  CHECK(order == "gone 10 release release");
}

/** The bytes of a segment are real and taken away by its release: a hold that comes too late would fault. */
TEST(memory, threadsThatHoldAndRemove) {
  MemoryTable table;
  std::atomic<u32> current{0};
  std::atomic<bool> stop{false};
  std::atomic<u64> held{0};
  std::atomic<u64> releases{0};
  std::atomic<u64> sum{0};
  constexpr u64 LENGTH = 1 << 16;
  std::atomic<u64> address{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; i++) {
    threads.emplace_back([&, i] {
      while (!stop) {
        const SegmentRef ref = i == 0 ? table.holdAddress(address, LENGTH) : table.hold(current);
        if (!ref) continue;
        held++;
        u64 mine = 0;
        for (u64 at = 0; at < LENGTH; at += 4096) mine += ref->base[at];
        sum += mine;
      }
    });
  }
  for (int round = 0; round < 100; round++) {
    u8* const base = static_cast<u8*>(mmap(nullptr, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base != MAP_FAILED);
    std::memset(base, 1, LENGTH);
    const u32 id = table.add(at(reinterpret_cast<u64>(base), LENGTH), [&, base] {
                          munmap(base, LENGTH);
                          releases++;
                        }).value;
    address = reinterpret_cast<u64>(base);
    current = id;
    for (const u64 before = held; held < before + 3;) std::this_thread::yield();
    std::atomic<bool> gone{false};
    REQUIRE(table.remove(id, [&] { gone = true; }).ok());
    while (!gone) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(releases == 100);
  CHECK(sum == held * (LENGTH / 4096));
}

TEST(memory, allocatedMemoryIsZeroedAndSealed) {
  MemoryTable table;
  for (const bool huge : {false, true}) {
    for (const u64 length : {u64{1}, u64{4096}, u64{100000}, u64{5} << 20}) {
      const Expected<Allocation> made = allocate(table, length, {huge, -1, true});
      REQUIRE(made.ok());
      const SegmentRef ref = table.hold(made.value.id);
      REQUIRE(ref);
      CHECK(ref->length == length && ref->backing == Backing::memfd && ref->base == made.value.mapping->base());
      CHECK(std::all_of(ref->base, ref->base + length, [](u8 byte) { return byte == 0; }));
      std::memset(ref->base, 7, length);
      CHECK(ftruncate(ref->fd, 0) != 0 && ftruncate(ref->fd, 1 << 30) != 0);
      void* const again = mmap(nullptr, made.value.mapping->length(), PROT_READ, MAP_SHARED, ref->fd, 0);
      REQUIRE(again != MAP_FAILED);
      CHECK(static_cast<u8*>(again)[length - 1] == 7);
      munmap(again, made.value.mapping->length());
    }
  }
}

TEST(memory, allocatedMemoryOutlivesItsSegment) {
  MemoryTable table;
  const Expected<Allocation> made = allocate(table, 4096, {});
  REQUIRE(made.ok());
  const int fd = table.hold(made.value.id)->fd;
  bool released = false;
  CHECK(table.remove(made.value.id, [&] { released = true; }).ok());
  CHECK(released);
  CHECK(fcntl(fd, F_GETFD) < 0);
  made.value.mapping->base()[4095] = 1;
}

TEST(memory, allocationRefusesWhatCannotBe) {
  MemoryTable table;
  CHECK(allocate(table, 0, {}).status.code == Code::invalidArgument);
  CHECK(allocate(table, ~u64{0}, {}).status.code == Code::invalidArgument);
  CHECK(allocate(table, 4096, {false, 1024, true}).status.code == Code::invalidArgument);
  CHECK(!allocate(table, 4096, {false, 1000, true}).ok());
  CHECK(table.list().empty());
  const Expected<Allocation> here = allocate(table, 4096, {false, 0, true});
  // No NUMA system call in some sandboxes: then it says so.
  if (here.ok()) here.value.mapping->base()[0] = 1;
  CHECK(here.ok() || here.status.code == Code::system);
}
