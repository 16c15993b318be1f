#include "test/file/fixture.h"

#include "test/check.h"
#include "transport/file/ring.h"

#include <cstring>
#include <fstream>

namespace mooncake::file::test {

void fillRandomly(std::mt19937_64& random, Bytes& bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(u64)) {
    const u64 word = random();
    std::memcpy(bytes.data() + at, &word, std::min(sizeof word, bytes.size() - at));
  }
}

void writeFile(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

/** Also of files whose size is not known before (/proc). */
Bytes readFile(const std::string& path) {
  constexpr size_t piece = 1 << 20;
  std::ifstream in(path, std::ios::binary);
  Bytes bytes;
  while (in) {
    const size_t at = bytes.size();
    bytes.resize(at + piece);
    in.read(reinterpret_cast<char*>(bytes.data() + at), piece);
    bytes.resize(at + static_cast<size_t>(in.gcount()));
  }
  return bytes;
}

const std::vector<Mode>& modes() {
  static const std::vector<Mode> all = [] {
    std::vector<Mode> found{{Io::threads, true, "threads, direct"},
                            {Io::threads, false, "threads, buffered"}};
    if (uring::Ring::open(1).ok()) {
      found.push_back({Io::uring, true, "io_uring, direct"});
      found.push_back({Io::uring, false, "io_uring, buffered"});
    } else {
      std::fprintf(stderr, "  SKIP io_uring: not allowed here\n");
    }
    return found;
  }();
  return all;
}

u32 addMemory(MemoryTable& memory, Bytes& bytes) {
  Segment segment;
  segment.base = bytes.data();
  segment.length = bytes.size();
  return memory.add(std::move(segment), {}).value;
}

void Driver::settled(Slice&, Status status, bool verified) {
  CHECK(!verified);
  const std::lock_guard lock(mutex_);
  settledSlices++;
  if (first_.ok()) first_ = std::move(status);
  if (--left_ == 0) done_.notify_all();
}

Status Driver::copy(const std::vector<Record>& records, u64 sliceBytes,
                    const std::function<void(Batch&)>& posted) {
  Batch batch(1, Op::copy, false, Clock::now() + std::chrono::minutes(1), records);
  if (Status status = batch.prepare(memory, nullptr, {sliceBytes, 4096}); !status.ok()) return status;
  {
    const std::lock_guard lock(mutex_);
    left_ = batch.slices().size();
    settledSlices = 0;
    first_ = {};
  }
  for (Slice& slice : batch.slices())
    link.post(slice);
  if (posted) posted(batch);
  std::unique_lock lock(mutex_);
  const bool ended = done_.wait_for(lock, std::chrono::minutes(1), [this] { return left_ == 0; });
  CHECK(ended);
  if (!ended) std::abort();
  return first_;
}

} // namespace mooncake::file::test
