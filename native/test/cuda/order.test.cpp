// Batches that wait for events of GPUs, and record them: what a copy reads was written before, and who reads what was copied
// comes after it.
#include "test/cuda/gpus.h"

#include <atomic>
#include <cstring>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;

namespace {

using std::chrono::milliseconds;

struct Waiting {
  Waiting(Gpus& gpus, BatchSpec made) {
    auto submitted = gpus.engine->submit(std::move(made), [this](u64, BatchResult result) { done.set_value(std::move(result)); });
    REQUIRE(submitted.ok());
    number = submitted.value;
  }
  bool over(int within = 0) { return future.wait_for(milliseconds(within)) == std::future_status::ready; }
  u64 number = 0;
  std::promise<BatchResult> done;
  std::future<BatchResult> future = done.get_future();
};

BatchSpec after(std::vector<Record> records, std::vector<u32> waits, std::vector<u32> signals = {}) {
  BatchSpec made = Gpus::spec(std::move(records));
  made.waits = std::move(waits);
  made.signals = std::move(signals);
  return made;
}

}  // namespace

TEST(cudaOrder, nothingIsReadBeforeTheEventIsOver) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  const u32 cache = gpus.allocate(0, MIB);
  size_t foreign = 0;
  const Expected<u32> event = gpus.engine->openEvent("cuda:0", gpus.simulated.foreignEvent(foreign));
  REQUIRE(event.ok());
  gpus.simulated.setForeign(foreign, false);
  {
    Waiting saved(gpus, after({{cache, host.id, 0, 0, MIB}}, {event.value}));
    CHECK(!saved.over(20));
    // The engine's kernel comes to its end only now. Without the wait the copy above has read what was there before.
    std::memset(gpus.bytes(cache), 7, MIB);
    gpus.simulated.setForeign(foreign, true);
    CHECK(saved.future.get().status.ok());
    CHECK(host.data == std::vector<u8>(MIB, 7));
  }
  // Recorded again: it is waited for again.
  gpus.simulated.setForeign(foreign, false);
  Waiting next(gpus, after({{cache, host.id, 0, 0, MIB}}, {event.value}));
  CHECK(!next.over(20));
  gpus.simulated.setForeign(foreign, true);
  CHECK(next.future.get().status.ok());
  CHECK(gpus.engine->closeEvent(event.value).ok());
  CHECK(!gpus.engine->closeEvent(event.value).ok());
}

TEST(cudaOrder, whoWaitsHoldsUpNobodyAndCanBeGivenUp) {
  Gpus gpus(1);
  Bytes host(*gpus.engine, MIB);
  const u32 cache = gpus.allocate(0, MIB);
  size_t foreign = 0;
  const Expected<u32> event = gpus.engine->openEvent("cuda:0", gpus.simulated.foreignEvent(foreign));
  REQUIRE(event.ok());
  gpus.simulated.setForeign(foreign, false);
  Waiting cancelled(gpus, after({{cache, host.id, 0, 0, MIB}}, {event.value}));
  BatchSpec late = after({{cache, host.id, 0, 0, MIB}}, {event.value});
  late.deadline = soon(50);
  Waiting overdue(gpus, std::move(late));
  for (int i = 0; i < 20; i++) CHECK(gpus.copy({{host.id, cache, 0, 0, MIB}}).status.ok());
  CHECK(!cancelled.over());
  gpus.engine->cancel(cancelled.number);
  CHECK(cancelled.future.get().status.code == Code::aborted);
  CHECK(overdue.future.get().status.code == Code::timeout);
  Waiting left(gpus, after({{cache, host.id, 0, 0, MIB}}, {event.value}));
  gpus.engine->close();
  CHECK(left.future.get().status.code == Code::closed);
}

TEST(cudaOrder, anEventIsRecordedBehindTheWholeBatch) {
  Gpus gpus;
  constexpr u64 LENGTH = u64{600} << 20;
  const u32 from = gpus.allocate(0, LENGTH);
  const u32 to = gpus.allocate(1, LENGTH);
  const u32 small = gpus.allocate(1, MIB);
  size_t foreign = 0;
  const Expected<u32> event = gpus.engine->openEvent("cuda:1", gpus.simulated.foreignEvent(foreign));
  REQUIRE(event.ok());
  std::memset(gpus.bytes(from), 5, LENGTH);
  gpus.simulated.setForeign(foreign, false);
  gpus.simulated.hold();
  // Three slices.
  Waiting loaded(gpus, after({{from, to, 0, 0, LENGTH}}, {}, {event.value}));
  while (gpus.simulated.launches() + gpus.simulated.batches() + (gpus.simulated.copied() > 0 ? 1 : 0) < 3) std::this_thread::yield();
  CHECK(!gpus.simulated.foreignIsOver(foreign));
  gpus.simulated.release();
  while (!gpus.simulated.foreignIsOver(foreign)) std::this_thread::yield();
  CHECK(gpus.bytes(to)[LENGTH - 1] == 5 && gpus.bytes(to)[0] == 5);
  CHECK(loaded.future.get().status.ok());
  // One of our own: made, recorded by a batch and waited for by another.
  const Expected<u32> own = gpus.engine->createEvent("cuda:1");
  REQUIRE(own.ok());
  CHECK(gpus.engine->exportEvent(own.value).ok());
  Waiting first(gpus, after({{to, small, 0, 0, MIB}}, {}, {own.value}));
  Waiting second(gpus, after({{small, from, 0, 0, MIB}}, {own.value}));
  CHECK(first.future.get().status.ok() && second.future.get().status.ok());
  CHECK(gpus.engine->closeEvent(own.value).ok() && gpus.engine->closeEvent(event.value).ok());
}

TEST(cudaOrder, refusesWhatIsNoEvent) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  Bytes other(*gpus.engine, MIB);
  const u32 cache = gpus.allocate(0, MIB);
  CHECK(gpus.engine->openEvent("cuda:0", {}).status.code == Code::invalidArgument);
  CHECK(gpus.engine->openEvent("cuda:9", {}).status.code == Code::invalidArgument);
  CHECK(gpus.engine->exportEvent(77).status.code == Code::invalidArgument);
  CHECK(move(*gpus.engine, after({{host.id, cache, 0, 0, 8}}, {77})).status.code == Code::invalidArgument);
  const Expected<u32> events[2] = {gpus.engine->createEvent("cuda:0"), gpus.engine->createEvent("cuda:1")};
  REQUIRE(events[0].ok() && events[1].ok());
  CHECK(move(*gpus.engine, after({{host.id, cache, 0, 0, 8}}, {}, {events[0].value, events[1].value})).status.code == Code::invalidArgument);
  // Nothing of a GPU's would wait.
  CHECK(move(*gpus.engine, after({{host.id, other.id, 0, 0, 8}}, {events[0].value})).status.code == Code::invalidArgument);
  gpus.simulated.fail("cuEventQuery", 719, 1000);
  const BatchResult failed = move(*gpus.engine, after({{host.id, cache, 0, 0, 8}}, {events[0].value}));
  gpus.simulated.fail("cuEventQuery", 719, 0);
  CHECK(failed.status.code != Code::ok);
  CHECK(move(*gpus.engine, after({{host.id, cache, 0, 0, 8}}, {events[0].value})).status.ok());
}
