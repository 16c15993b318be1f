#include "engine/engine.h"
#include "test/check.h"
#include "test/engine/support.h"

#include <cstring>
#include <random>

using namespace mooncake;
using namespace mooncake::test;

TEST(local, copiesWhatRecordsSay) {
  Engine engine({});
  Bytes source(engine, 3 << 20);
  Bytes target(engine, 3 << 20);
  source.fill(1);
  std::mt19937_64 random(7);
  for (int round = 0; round < 40; round++) {
    target.fill(2);
    std::vector<u8> expected = target.data;
    std::vector<Record> records;
    // Destinations one behind the other, so that no two overlap.
    for (u64 at = random() % 1000; at < target.data.size() && records.size() < 300;) {
      const u64 length = std::min<u64>(1 + random() % (round % 2 ? 1 << 20 : 200), target.data.size() - at);
      const u64 from = random() % (source.data.size() - length + 1);
      records.push_back({source.id, target.id, from, at, length});
      std::memcpy(&expected[at], &source.data[from], length);
      at += length + random() % 1000;
    }
    u64 total = 0;
    for (const Record& record : records) total += record.length;
    const BatchResult result = move(engine, {Op::copy, 0, records, soon(), round % 3 > 0});
    REQUIRE(result.status.ok());
    CHECK(result.bytes == total);
    CHECK(target.data == expected);
  }
}
