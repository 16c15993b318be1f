#include "test/rdma/support.h"

#include <cstring>

namespace mooncake::test {

TEST(rdma, writes_and_reads_over_one_rail) {
  Pair pair(1, 1);
  Bytes ours(pair.a.engine, 3 << 20);
  Bytes theirs(pair.b.engine, 3 << 20);
  ours.fill(1);
  pair.a.engine.setSegments(pair.peer, {pair.b.announced(theirs)});
  REQUIRE(pair.await(1));
  BatchResult result = pair.move(Op::write, {{ours.id, theirs.id, 0, 0, 3 << 20}});
  CHECK(result.status.ok());
  CHECK(result.bytes == 3 << 20);
  CHECK(result.verifiedBytes == 3 << 20);
  CHECK(ours.data == theirs.data);
  theirs.fill(2);
  result = pair.move(Op::read, {{theirs.id, ours.id, 5, 7, 1000003}});
  CHECK(result.status.ok());
  CHECK(std::memcmp(ours.data.data() + 7, theirs.data.data() + 5, 1000003) == 0);
}

TEST(rdma, scattered_records_arrive_over_four_rails) {
  Pair pair(4, 4);
  constexpr u64 BLOCK = 4096;
  constexpr u64 COUNT = 2000;
  Bytes ours(pair.a.engine, BLOCK * COUNT);
  Bytes theirs(pair.b.engine, BLOCK * COUNT);
  ours.fill(3);
  pair.a.engine.setSegments(pair.peer, {pair.b.announced(theirs)});
  REQUIRE(pair.await(4));
  std::vector<Record> records;
  for (u64 i = 0; i < COUNT; i++) records.push_back({ours.id, theirs.id, i * BLOCK, (COUNT - 1 - i) * BLOCK, i % 7 == 0 ? 40 : BLOCK});
  const BatchResult result = pair.move(Op::write, records);
  CHECK(result.status.ok());
  bool same = true;
  for (const Record& record : records) {
    same = same && std::memcmp(ours.data.data() + record.sourceOffset, theirs.data.data() + record.destinationOffset, record.length) == 0;
  }
  CHECK(same);
}

TEST(rdma, nothing_stays_open) {
  std::shared_ptr<NullVerbs> near, far;
  {
    Pair pair(2, 2);
    near = pair.a.verbs;
    far = pair.b.verbs;
    Bytes ours(pair.a.engine, 1 << 20);
    Bytes theirs(pair.b.engine, 1 << 20);
    pair.a.engine.setSegments(pair.peer, {pair.b.announced(theirs)});
    REQUIRE(pair.await(2));
    CHECK(pair.move(Op::write, {{ours.id, theirs.id, 0, 0, 1 << 20}}).status.ok());
    CHECK(!near->idle() && !far->idle());
    pair.a.engine.close();
    pair.b.engine.close();
    CHECK(near->idle() && far->idle());
  }
}

}  // namespace mooncake::test
