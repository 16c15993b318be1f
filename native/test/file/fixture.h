// What the tests of the file transport share: a folder that goes, memory and file segments, a link that is
// driven without an engine, and the modes in which everything has to hold.
#pragma once

#include "engine/batch.h"
#include "memory/file.h"
#include "transport/file/link.h"

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace mooncake::file::test {

class Folder {
public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "mooncake-file-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string at(const std::string& name) const { return (path_ / name).string(); }

private:
  std::filesystem::path path_;
};

using Bytes = std::vector<u8>;

void fillRandomly(std::mt19937_64& random, Bytes& bytes);

inline Bytes randomBytes(std::mt19937_64& random, u64 length) {
  Bytes bytes(length);
  fillRandomly(random, bytes);
  return bytes;
}

inline u64 upTo(std::mt19937_64& random, u64 most) {
  return std::uniform_int_distribution<u64>(0, most)(random);
}

void writeFile(const std::string& path, const Bytes& bytes);
Bytes readFile(const std::string& path);

struct Mode {
  Io io;
  bool direct;
  const char* name;
};

/** Those that this machine has. */
const std::vector<Mode>& modes();

/** Registers vectors as memory; the vectors stay the caller's. */
u32 addMemory(MemoryTable& memory, Bytes& bytes);

/** Posts batches to a link as the engine does, and waits until all their slices have settled. */
class Driver final : public LinkEvents {
public:
  explicit Driver(Io io) : link(io, *this) {}
  ~Driver() override { link.close(); }

  void settled(Slice& slice, Status status, bool verified) override;

  /** The first failure; ok where there was none. `posted` is called before the wait. */
  Status copy(const std::vector<Record>& records, u64 sliceBytes = 1 << 20,
              const std::function<void(Batch&)>& posted = {});

  MemoryTable memory;
  FileLink link;
  u32 settledSlices = 0;

private:
  std::mutex mutex_;
  std::condition_variable done_;
  u64 left_ = 0;
  Status first_;
};

} // namespace mooncake::file::test
