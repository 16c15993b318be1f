// Copies between memory and files, and between files, against a model that is two vectors: everything
// unaligned, in every mode, with neighbours that share pages written at the same time.
#include "test/check.h"
#include "test/file/fixture.h"

#include <algorithm>

namespace mooncake::file::test {

namespace {

/** A segment beside what it should hold. */
struct Side {
  u32 id;
  Bytes* model;
};

/** Cuts of [0, length), each a record into `target`; some are left out, sources may overlap. */
std::vector<Record> randomRecords(std::mt19937_64& random, const Side& source, const Side& target) {
  const u64 length = target.model->size();
  std::vector<u64> cuts{0, length};
  for (u64 i = upTo(random, 40); i > 0; i--) {
    u64 cut = upTo(random, length);
    if (upTo(random, 2) == 0) cut = cut / 4096 * 4096;
    cuts.push_back(cut);
  }
  std::sort(cuts.begin(), cuts.end());
  std::vector<Record> records;
  for (size_t i = 1; i < cuts.size(); i++) {
    const u64 bytes = std::min<u64>(cuts[i] - cuts[i - 1], source.model->size());
    if (bytes == 0 || upTo(random, 9) == 0) continue;
    u64 from = upTo(random, source.model->size() - bytes);
    // Often as far from a page's start as the target: what direct I/O needs.
    if (upTo(random, 1) == 0 && from + 4096 + bytes < source.model->size())
      from = from / 4096 * 4096 + cuts[i - 1] % 4096;
    records.push_back({source.id, target.id, from, cuts[i - 1], bytes});
  }
  std::shuffle(records.begin(), records.end(), random);
  return records;
}

void applyTo(Bytes& target, const Bytes& source, const std::vector<Record>& records) {
  for (const Record& record : records) {
    std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(record.sourceOffset), record.length,
                target.begin() + static_cast<std::ptrdiff_t>(record.destinationOffset));
  }
}

void againstModel(const Mode& mode, u64 seed) {
  std::mt19937_64 random(seed);
  const Folder folder;
  Driver driver(mode.io);
  Bytes files[2];
  Bytes memories[2];
  Bytes actual[2];
  std::vector<Side> sides;
  for (int i = 0; i < 2; i++) {
    files[i] = randomBytes(random, (1 << 20) + upTo(random, 1 << 20));
    const std::string path = folder.at(std::to_string(i));
    writeFile(path, files[i]);
    const Expected<u32> id = openFile(driver.memory, path, {0, true, mode.direct});
    REQUIRE(id.ok());
    sides.push_back({id.value, &files[i]});
  }
  for (int i = 0; i < 2; i++) {
    memories[i] = randomBytes(random, (1 << 20) + upTo(random, 1 << 20));
    actual[i] = memories[i];
    sides.push_back({addMemory(driver.memory, actual[i]), &memories[i]});
  }
  for (int round = 0; round < 12; round++) {
    const u64 target = upTo(random, 3);
    u64 source = upTo(random, 3);
    // One side is a file, the other another segment.
    while (source == target || (source >= 2 && target >= 2))
      source = upTo(random, 3);
    const std::vector<Record> records = randomRecords(random, sides[source], sides[target]);
    if (records.empty()) continue;
    const Status status = driver.copy(records, upTo(random, 1) == 0 ? 1 << 20 : 4096 + upTo(random, 1 << 18));
    if (!status.ok()) std::fprintf(stderr, "  %s: %s\n", mode.name, status.detail.c_str());
    CHECK(status.ok());
    applyTo(*sides[target].model, *sides[source].model, records);
    for (int i = 0; i < 2; i++) {
      CHECK(readFile(folder.at(std::to_string(i))) == files[i]);
      CHECK(actual[i] == memories[i]);
    }
  }
}

} // namespace

TEST(file_copies, equal_a_model_in_every_mode) {
  for (const Mode& mode : modes()) {
    for (u64 seed = 1; seed <= 4; seed++)
      againstModel(mode, seed);
  }
}

// Neighbours of a few bytes and of whole pages, all written at once: what the page cache and direct writes
// could spoil.
TEST(file_copies, neighbours_in_one_page_keep_each_others_bytes) {
  for (const Mode& mode : modes()) {
    std::mt19937_64 random(7);
    const Folder folder;
    Driver driver(mode.io);
    Bytes model(1 << 20);
    writeFile(folder.at("f"), model);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    Bytes source = randomBytes(random, model.size());
    Bytes back(model.size());
    const u32 from = addMemory(driver.memory, source);
    const u32 into = addMemory(driver.memory, back);
    for (int round = 0; round < 20; round++) {
      std::vector<Record> records;
      for (u64 at = upTo(random, 100); at < model.size();) {
        const u64 length = std::min(model.size() - at, upTo(random, 1) == 0 ? 1 + upTo(random, 700)
                                                                            : 20'000 + upTo(random, 30'000));
        records.push_back({from, file.value, at, at, length});
        at += length;
      }
      fillRandomly(random, source);
      CHECK(driver.copy(records, 8192 + upTo(random, 100'000)).ok());
      applyTo(model, source, records);
      // Once past the page cache, once through it.
      CHECK(driver.copy({{file.value, into, 0, 0, model.size()}}).ok());
      CHECK(back == model);
      CHECK(readFile(folder.at("f")) == model);
    }
  }
}

TEST(file_copies, holes_read_as_zeros) {
  for (const Mode& mode : modes()) {
    const Folder folder;
    writeFile(folder.at("f"), Bytes(10, 1));
    std::filesystem::resize_file(folder.at("f"), 300'001);
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, false, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(300'001, 9);
    CHECK(driver.copy({{file.value, addMemory(driver.memory, bytes), 0, 0, bytes.size()}}).ok());
    Bytes expected(300'001);
    std::fill_n(expected.begin(), 10, u8{1});
    CHECK(bytes == expected);
  }
}

TEST(file_copies, within_one_file) {
  for (const Mode& mode : modes()) {
    std::mt19937_64 random(3);
    const Folder folder;
    Bytes model = randomBytes(random, 900'000);
    writeFile(folder.at("f"), model);
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    const std::vector<Record> records{{file.value, file.value, 0, 450'000, 300'000},
                                      {file.value, file.value, 8192, 753'664, 131'072}};
    CHECK(driver.copy(records).ok());
    const Bytes before = model;
    applyTo(model, before, records);
    CHECK(readFile(folder.at("f")) == model);
  }
}

} // namespace mooncake::file::test
