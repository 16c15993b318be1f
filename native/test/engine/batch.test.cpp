#include "engine/batch.h"

#include "engine/peer.h"
#include "test/check.h"

#include <random>

using namespace mooncake;

namespace {

/** Two memories and a file of ours, never dereferenced, and a peer with two segments. */
struct World {
  MemoryTable memory;
  Peer peer{"peer", 1};
  u32 ids[3];
  u64 lengths[3] = {u64{1} << 33, u64{1} << 30, u64{1} << 32};

  World() {
    for (int i = 0; i < 3; i++) {
      Segment segment;
      segment.length = lengths[i];
      segment.backing = i == 2 ? Backing::file : Backing::foreign;
      if (i < 2) segment.base = reinterpret_cast<u8*>(u64(i + 1) << 40);
      ids[i] = memory.add(std::move(segment), {}).value;
    }
    peer.setSegment({7, 0, u64{1} << 34});
    peer.setSegment({9, 0, 1000});
  }

  Status prepare(Op op, std::vector<Record> records) {
    Batch batch(1, op, false, Clock::time_point::max(), std::move(records));
    return batch.prepare(memory, op == Op::copy ? nullptr : &peer, SliceLimits{});
  }
};

bool isFile(const Segment* segment) { return segment != nullptr && segment->backing == Backing::file; }

/** The pieces of all slices, put together, are the records in order. */
void checkUnion(const World& world, Batch& batch, const SliceLimits& limits) {
  size_t record = 0;
  u64 done = 0;
  for (const Slice& slice : batch.slices()) {
    CHECK(slice.bytes > 0 && slice.bytes <= limits.bytes);
    CHECK(slice.count > 0 && slice.count <= limits.records);
    u64 bytes = 0;
    u32 index = 0;
    slice.forEach([&](const Piece& piece) {
      REQUIRE(record < batch.records().size());
      const Record& expected = batch.records()[record];
      const bool write = batch.op() == Op::write;
      CHECK(piece.length > 0);
      CHECK(piece.local->id == (write ? expected.source : expected.destination));
      CHECK(piece.localOffset == (write ? expected.sourceOffset : expected.destinationOffset) + done);
      CHECK(piece.remote == (write ? expected.destination : expected.source));
      CHECK(piece.remoteOffset == (write ? expected.destinationOffset : expected.sourceOffset) + done);
      if (isFile(piece.local)) {
        CHECK(piece.address == nullptr);
      } else {
        CHECK(piece.address == piece.local->base + piece.localOffset);
      }
      CHECK((piece.source != nullptr) == (batch.op() == Op::copy));
      if (piece.source != nullptr) CHECK(piece.source->id == expected.source);
      CHECK(slice.file == (isFile(piece.local) || isFile(piece.source)));
      const Piece same = slice.piece(index++);
      CHECK(same.address == piece.address && same.local == piece.local && same.localOffset == piece.localOffset &&
            same.remote == piece.remote && same.remoteOffset == piece.remoteOffset && same.length == piece.length &&
            same.source == piece.source);
      bytes += piece.length;
      done += piece.length;
      REQUIRE(done <= expected.length);
      if (done == expected.length) {
        done = 0;
        record++;
      }
    });
    CHECK(bytes == slice.bytes);
  }
  CHECK(record == batch.records().size() && done == 0);
  static_cast<void>(world);
}

}  // namespace

TEST(batch, slicesAreTheRecords) {
  World world;
  std::mt19937_64 random(11);
  for (int round = 0; round < 2000; round++) {
    const Op op = static_cast<Op>(round % 3);
    const SliceLimits limits{1 + random() % (round % 2 ? 100 : u64{1} << 20), 1 + static_cast<u32>(random() % 40)};
    std::vector<Record> records(1 + random() % 60);
    for (Record& record : records) {
      record.length = 1 + random() % (limits.bytes * (1 + random() % 5));
      const auto ours = [&](u32& id, u64& offset) {
        const u64 which = round % 5 == 0 ? random() % 3 : random() % 2;
        id = world.ids[which];
        offset = random() % (world.lengths[which] - record.length + 1);
      };
      record.source = record.destination = 7;
      record.sourceOffset = record.destinationOffset = random() % 1000;
      if (op != Op::read) ours(record.source, record.sourceOffset);
      if (op != Op::write) ours(record.destination, record.destinationOffset);
    }
    u64 total = 0;
    for (const Record& record : records) total += record.length;
    Batch batch(1, op, false, Clock::time_point::max(), std::move(records));
    REQUIRE(batch.prepare(world.memory, op == Op::copy ? nullptr : &world.peer, limits).ok());
    CHECK(batch.bytes() == total);
    checkUnion(world, batch, limits);
  }
}

TEST(batch, holdsWhatItNames) {
  World world;
  bool released = false;
  {
    Batch batch(1, Op::copy, false, Clock::time_point::max(), {{world.ids[0], world.ids[1], 0, 0, 5}});
    REQUIRE(batch.prepare(world.memory, nullptr, SliceLimits{}).ok());
    CHECK(world.memory.remove(world.ids[1], [&] { released = true; }).ok());
    CHECK(!released);
    CHECK(batch.segment(world.ids[1]) != nullptr && batch.segment(world.ids[2]) == nullptr);
    CHECK(world.prepare(Op::copy, {{world.ids[0], world.ids[1], 0, 0, 5}}).code == Code::segment);
  }
  CHECK(released);
}

TEST(batch, refusesWhatIsNotThere) {
  World world;
  const u32 a = world.ids[0];
  const u32 b = world.ids[1];
  constexpr u64 far = ~u64{0};
  CHECK(world.prepare(Op::copy, {{a, b, 0, 0, 1}, {a, b, 0, 0, 0}}).detail == "record 1: length is 0");
  CHECK(world.prepare(Op::copy, {{a, b, 0, 0, 0}}).code == Code::invalidArgument);
  CHECK(world.prepare(Op::copy, {{99, b, 0, 0, 1}}).detail == "record 0: source segment 99 is not registered");
  CHECK(world.prepare(Op::copy, {{a, 99, 0, 0, 1}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{a, b, world.lengths[0], 0, 1}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{a, b, world.lengths[0] - 1, 0, 2}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{a, b, far, 0, 2}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{a, b, 1, 0, far}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{a, b, 0, far, 1}}).code == Code::segment);
  CHECK(world.prepare(Op::read, {{8, b, 0, 0, 1}}).detail == "record 0: source segment 8 is not the peer's");
  CHECK(world.prepare(Op::read, {{9, b, 1000, 0, 1}}).code == Code::segment);
  CHECK(world.prepare(Op::read, {{9, b, 999, 0, 1}}).ok());
  CHECK(world.prepare(Op::write, {{b, 9, 0, 0, 1001}}).detail ==
        "record 0: destination segment 9: 1001 bytes at 0 leave its 1000");
  CHECK(world.prepare(Op::write, {{b, 9, 0, far, 2}}).code == Code::segment);
}

TEST(batch, filesForReadingAreNoDestination) {
  World world;
  Segment file;
  file.length = 100;
  file.backing = Backing::file;
  file.writable = false;
  const u32 id = world.memory.add(std::move(file), {}).value;
  CHECK(world.prepare(Op::copy, {{world.ids[0], id, 0, 0, 1}}).code == Code::segment);
  CHECK(world.prepare(Op::copy, {{id, world.ids[0], 0, 0, 1}}).ok());
}
