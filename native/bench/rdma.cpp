// What a slice costs the processor in our own code: engine, path and completion queue over devices that take each request and
// complete it at once without moving a byte. Prints a JSON line for each number of rails: nanoseconds of processor time, of all
// threads together, per slice of 64 KiB.
#include "test/rdma/support.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace {

using namespace mooncake;
using namespace mooncake::test;

constexpr u64 SLICE = 64 << 10;
constexpr u64 BATCH = u64{1} << 30;
constexpr int BATCHES = 24;

double processorSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

/** Address space without pages: nothing touches them. */
struct Space {
  explicit Space(Engine& where) : base(static_cast<u8*>(::mmap(nullptr, BATCH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    Segment segment;
    segment.base = base;
    segment.length = BATCH;
    id = where.memory().add(segment, [at = base] { ::munmap(at, BATCH); }).value;
  }
  u8* const base;
  u32 id = 0;
};

void measure(u32 rails) {
  // The peer is one of Mooncake's own kind to us, so that no messages are exchanged.
  Pair pair(rails, rails, {{"protocol", "stock"}});
  for (u32 i = 0; i < rails; i++) pair.a.verbs->set(i, [](NullDevice& device) { device.hollow = true; });
  const Space ours(pair.a.engine);
  const Space theirs(pair.b.engine);
  const auto keys = pair.b.engine.expose("rdma", theirs.id);
  auto remote = std::make_shared<std::vector<u32>>();
  for (const SegmentKey& key : keys.value) remote->push_back(key.remote);
  pair.a.engine.setSegments(pair.peer, {{theirs.id, reinterpret_cast<u64>(theirs.base), BATCH, std::move(remote)}});
  if (!pair.await(rails)) std::abort();
  const auto run = [&](int batches) {
    for (int i = 0; i < batches; i++) {
      if (!pair.move(Op::write, {{ours.id, theirs.id, 0, 0, BATCH}}, 60000, false).status.ok()) std::abort();
    }
  };
  run(2);
  const double before = processorSeconds();
  run(BATCHES);
  const double spent = processorSeconds() - before;
  std::printf("{\"rails\":%u,\"nanoseconds\":%.1f}\n", rails, spent * 1e9 / (static_cast<double>(BATCH / SLICE) * BATCHES));
  std::fflush(stdout);
}

}  // namespace

int main() {
  ::setenv("MC_SLICE_SIZE", std::to_string(SLICE).c_str(), 1);
  for (const u32 rails : {1u, 8u}) measure(rails);
  return 0;
}
