// Copies with memory of GPUs on a simulated driver: what is scheduled where, what is held and given back, what fails how.
#include "test/cuda/gpus.h"
#include "transport/cuda/kernels_ptx.h"

#include <cstring>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;

TEST(cuda, ptxIsForEveryDriverSinceElevenEight) {
  const std::string ptx = cuda::KERNELS;
  CHECK(ptx.find(".version 7.8") != std::string::npos);
  CHECK(ptx.find(".target sm_80") != std::string::npos);
  for (const char* kernel : {"copy", "sum", "rows"}) CHECK(ptx.find(std::string(".entry mooncake_") + kernel) != std::string::npos);
}

TEST(cuda, withoutADriverThereAreNoGpus) {
  Engine engine({});
  for (const auto& [name, probe] : engine.probe()) {
    if (name == "cuda" && probe.usable) return;  // a machine that has some
  }
  const Expected<u32> id = engine.allocateDevice("cuda:0", MIB);
  CHECK(id.status.code == Code::notSupported);
}

TEST(cuda, scattersLikeANaiveCopy) {
  Gpus gpus;
  Bytes host(*gpus.engine, 4 * MIB);
  const u32 device[2] = {gpus.allocate(0, 4 * MIB), gpus.allocate(1, 4 * MIB)};
  std::mt19937_64 random(7);
  std::vector<u8> expected(4 * MIB);
  for (int round = 0; round < 30; round++) {
    host.fill(random());
    const u32 to = device[random() % 2];
    std::memcpy(expected.data(), gpus.bytes(to), expected.size());
    // Pieces in the order of their places, of any length and alignment, from anywhere.
    std::vector<Record> records;
    for (u64 at = random() % 100; at < 4 * MIB;) {
      const u64 length = std::min<u64>(1 + random() % (round % 2 == 0 ? 300 : 300 * KIB), 4 * MIB - at);
      const u64 from = random() % (4 * MIB - length + 1);
      records.push_back({host.id, to, from, at, length});
      std::memcpy(expected.data() + at, host.data.data() + from, length);
      at += length + random() % 1000;
    }
    const BatchResult result = gpus.copy(std::move(records));
    REQUIRE(result.status.ok());
    CHECK(std::memcmp(expected.data(), gpus.bytes(to), expected.size()) == 0);
    // And back, by way of the other GPU.
    const u32 other = to == device[0] ? device[1] : device[0];
    REQUIRE(gpus.copy({{to, other, 0, 0, 4 * MIB}}).status.ok());
    REQUIRE(gpus.copy({{other, host.id, 0, 0, 4 * MIB}}).status.ok());
    CHECK(host.data == expected);
  }
}

TEST(cuda, comparesWhatArrivedWithWhatWasRead) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  host.fill(2);
  const u32 device = gpus.allocate(0, MIB);
  const BatchResult result = gpus.copy({{host.id, device, 1, 0, 100'003}, {host.id, device, 200'000, 300'000, 5}}, true);
  REQUIRE(result.status.ok());
  CHECK(result.verifiedBytes == result.bytes);
  gpus.simulated.corruptNext();
  CHECK(gpus.copy({{device, host.id, 0, 0, 100'003}}, true).status.code == Code::corrupt);
  CHECK(gpus.copy({{device, host.id, 0, 0, 100'003}}, true).status.ok());
  gpus.simulated.fail("cuMemHostRegister", cuda::OUT_OF_MEMORY);
  Bytes crooked(*gpus.engine, MIB);
  CHECK(gpus.copy({{device, crooked.id, 0, 0, 1000}}, true).verifiedBytes == 0);
}

TEST(cuda, oneBatchMayNameBothKindsOfMemory) {
  Gpus gpus;
  Bytes a(*gpus.engine, MIB);
  Bytes b(*gpus.engine, MIB);
  a.fill(1);
  const u32 device = gpus.allocate(1, MIB);
  const BatchResult result = gpus.copy({{a.id, b.id, 0, 0, 1000}, {a.id, device, 0, 5, 1000}, {a.id, b.id, 2000, 2000, 1000}}, true);
  REQUIRE(result.status.ok());
  CHECK(result.verifiedBytes == 3000);
  CHECK(std::memcmp(b.data.data() + 2000, a.data.data() + 2000, 1000) == 0);
  CHECK(std::memcmp(gpus.bytes(device) + 5, a.data.data(), 1000) == 0);
}

TEST(cuda, theDriverCopiesWhatTheKernelCannotReach) {
  Gpus gpus;
  gpus.simulated.separate();
  Bytes host(*gpus.engine, MIB);
  host.fill(3);
  const u32 first = gpus.allocate(0, MIB);
  const u32 second = gpus.allocate(1, MIB);
  gpus.simulated.fail("cuMemHostRegister", cuda::OUT_OF_MEMORY);
  REQUIRE(gpus.copy({{host.id, first, 0, 0, MIB}}).status.ok());
  CHECK(gpus.simulated.copied() == MIB);
  REQUIRE(gpus.copy({{first, second, 0, 0, MIB}}).status.ok());
  CHECK(gpus.simulated.copied() == 2 * MIB && gpus.simulated.launches() == 0);
  CHECK(std::memcmp(gpus.bytes(second), host.data.data(), MIB) == 0);
}

TEST(cuda, pinsHostMemoryOnceAndUnpinsItWhenItGoes) {
  Gpus gpus;
  const u32 device = gpus.allocate(0, MIB);
  const size_t before = [&] {
    Bytes host(*gpus.engine, MIB);
    for (int i = 0; i < 3; i++) REQUIRE(gpus.copy({{host.id, device, 0, 0, MIB}}).status.ok());
    return gpus.simulated.leaks();
  }();
  CHECK(gpus.simulated.leaks() == before - 1);
}

TEST(cuda, memoryThatIsTakenAwayStaysPinnedWhileItIsCopied) {
  Gpus gpus;
  const u32 device = gpus.allocate(0, MIB);
  auto host = std::make_unique<Bytes>(*gpus.engine, MIB);
  host->fill(5);
  const std::vector<u8> expected = host->data;
  gpus.simulated.hold();
  std::promise<BatchResult> done;
  REQUIRE(gpus.engine->submit(Gpus::spec({{host->id, device, 0, 0, MIB}}), [&](u64, BatchResult result) { done.set_value(result); }).ok());
  while (gpus.simulated.launches() == 0) std::this_thread::yield();
  std::promise<void> released;
  REQUIRE(gpus.engine->memory().remove(host->id, [&] { released.set_value(); }).ok());
  auto over = released.get_future();
  CHECK(over.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  gpus.simulated.release();
  CHECK(done.get_future().get().status.ok());
  over.wait();
  CHECK(std::memcmp(gpus.bytes(device), expected.data(), MIB) == 0);
}

TEST(cuda, opensAHandleOnceForAllSegmentsInIt) {
  Gpus gpus;
  cuda::IpcHandle handle;
  u8* const theirs = gpus.simulated.foreign(1, MIB, handle);
  Bytes host(*gpus.engine, MIB);
  host.fill(9);
  const Expected<u32> a = gpus.engine->importDevice("cuda:1", handle, 0, 4 * KIB);
  const Expected<u32> b = gpus.engine->importDevice("cuda:1", handle, 512 * KIB, 512 * KIB);
  REQUIRE(a.ok() && b.ok());
  CHECK(gpus.simulated.opened() == 1);
  REQUIRE(gpus.copy({{host.id, b.value, 0, 1, 1000}}).status.ok());
  CHECK(std::memcmp(theirs + 512 * KIB + 1, host.data.data(), 1000) == 0);
  gpus.remove(a.value);
  REQUIRE(gpus.copy({{host.id, b.value, 0, 0, 1000}}).status.ok());
  gpus.remove(b.value);
  const Expected<u32> again = gpus.engine->importDevice("cuda:1", handle, 0, MIB);
  REQUIRE(again.ok());
  CHECK(gpus.simulated.opened() == 2);
}

TEST(cuda, refusesMemoryThatIsNotThere) {
  Gpus gpus;
  cuda::IpcHandle handle;
  gpus.simulated.foreign(1, MIB, handle);
  CHECK(gpus.engine->importDevice("cuda:0", handle, 0, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->importDevice("cuda:1", handle, KIB, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->importDevice("cuda:1", handle, u64{1} << 40, 1).status.code == Code::invalidArgument);
  CHECK(gpus.engine->importDevice("cuda:2", handle, 0, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->importDevice("GPU-000", handle, 0, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->importDevice("cuda:1", {}, 0, MIB).status.code == Code::invalidArgument);
  const u32 device = gpus.allocate(0, MIB);
  const u64 address = gpus.engine->memory().hold(device)->deviceAddress;
  CHECK(gpus.engine->registerDevice("cuda:0", address + 1, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->registerDevice("cuda:0", 64, 1).status.code == Code::invalidArgument);
  CHECK(gpus.engine->registerDevice("cuda:0", address + 1, MIB - 1).ok());
  gpus.simulated.fail("cuMemAlloc", cuda::OUT_OF_MEMORY);
  const Expected<u32> none = gpus.engine->allocateDevice("cuda:0", MIB);
  CHECK(none.status.code == Code::outOfMemory);
  CHECK(none.status.detail.find("1048576 bytes") != std::string::npos);
}

TEST(cuda, aGpuIsFoundByItsUuid) {
  Gpus gpus;
  const Expected<u32> id = gpus.engine->allocateDevice("GPU-00010203-0405-0607-0809-0a0b0c0d0e65", MIB);
  REQUIRE(id.ok());
  CHECK(gpus.engine->memory().hold(id.value)->device == 1);
}

TEST(cuda, exportsTheAllocationAndThePlaceInIt) {
  Gpus gpus;
  const u32 device = gpus.allocate(0, MIB);
  const u64 address = gpus.engine->memory().hold(device)->deviceAddress;
  const Expected<u32> part = gpus.engine->registerDevice("cuda:0", address + 4 * KIB, KIB);
  REQUIRE(part.ok());
  const Expected<cuda::Exported> exported = gpus.engine->exportDevice(part.value);
  REQUIRE(exported.ok());
  CHECK(exported.value.offset == 4 * KIB);
  CHECK(std::memcmp(exported.value.handle.bytes, &address, sizeof address) == 0);
  Bytes host(*gpus.engine, KIB);
  CHECK(gpus.engine->exportDevice(host.id).status.code == Code::segment);
}

TEST(cuda, aFailedLaunchLeavesTheRestWorking) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  host.fill(4);
  const u32 device = gpus.allocate(0, MIB);
  for (const char* symbol : {"cuLaunchKernel", "cuEventRecord"}) {
    gpus.simulated.fail(symbol, 1);
    const BatchResult failed = gpus.copy({{host.id, device, 0, 0, MIB}});
    CHECK(failed.status.code != Code::ok);
    CHECK(failed.status.detail.find(symbol) != std::string::npos);
    REQUIRE(gpus.copy({{host.id, device, 0, 0, MIB}}).status.ok());
    CHECK(std::memcmp(gpus.bytes(device), host.data.data(), MIB) == 0);
  }
}

TEST(cuda, aGpuThatCannotBePreparedFailsItsBatchesAlone) {
  for (const char* symbol : {"cuStreamCreateWithPriority", "cuMemHostAlloc", "cuEventCreate"}) {
    Gpus gpus;
    Bytes host(*gpus.engine, MIB);
    Bytes other(*gpus.engine, MIB);
    const u32 device[2] = {gpus.allocate(0, MIB), gpus.allocate(1, MIB)};
    gpus.simulated.fail(symbol, cuda::OUT_OF_MEMORY);
    CHECK(gpus.copy({{host.id, device[0], 0, 0, MIB}}).status.code != Code::ok);
    CHECK(gpus.copy({{host.id, device[1], 0, 0, MIB}}).status.ok());
    CHECK(gpus.copy({{host.id, other.id, 0, 0, MIB}}).status.ok());
  }
}

TEST(cuda, aLostContextIsSaidOnceAndForAll) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  Bytes other(*gpus.engine, MIB);
  const u32 device = gpus.allocate(0, MIB);
  gpus.simulated.fail("cuEventSynchronize", 719);
  CHECK(gpus.copy({{host.id, device, 0, 0, MIB}}).status.code != Code::ok);
  const BatchResult after = gpus.copy({{host.id, device, 0, 0, MIB}});
  CHECK(after.status.code != Code::ok);
  CHECK(after.status.detail.find("GPU-") != std::string::npos);
  CHECK(gpus.copy({{host.id, other.id, 0, 0, MIB}}).status.ok());
}

TEST(cuda, whatWasNotLaunchedIsCancelledAtOnce) {
  Gpus gpus(1);
  constexpr u64 LENGTH = 64 * MIB;
  const u32 a = gpus.allocate(0, LENGTH);
  const u32 b = gpus.allocate(0, LENGTH);
  gpus.simulated.hold();
  std::promise<BatchResult> done[40];
  std::vector<u64> numbers;
  for (auto& one : done) {
    const Expected<u64> number = gpus.engine->submit(Gpus::spec({{a, b, 0, 0, LENGTH}}), [&](u64, BatchResult result) { one.set_value(result); });
    REQUIRE(number.ok());
    numbers.push_back(number.value);
  }
  while (gpus.simulated.launches() == 0) std::this_thread::yield();
  gpus.engine->cancel(numbers.back());
  CHECK(done[39].get_future().get().status.code == Code::aborted);
  gpus.engine->cancel(numbers.front());
  auto first = done[0].get_future();
  // Its kernel still touches the memory.
  CHECK(first.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  gpus.simulated.release();
  CHECK(first.get().status.code == Code::aborted);
  for (int i = 1; i < 39; i++) CHECK(done[i].get_future().get().status.ok());
}

TEST(cuda, closingEndsWhatIsUnderWay) {
  Gpus gpus(1);
  const u32 a = gpus.allocate(0, MIB);
  const u32 b = gpus.allocate(0, MIB);
  std::promise<BatchResult> done[20];
  for (auto& one : done) {
    REQUIRE(gpus.engine->submit(Gpus::spec({{a, b, 0, 0, MIB}}), [&](u64, BatchResult result) { one.set_value(result); }).ok());
  }
  gpus.engine->close();
  for (auto& one : done) static_cast<void>(one.get_future().get());
}

TEST(cuda, transportsMayLeaveItOut) {
  CudaDouble simulated;
  EngineOptions options;
  options.cudaDriver = simulated.driver();
  options.transports = {"tcp"};
  Engine engine(options);
  CHECK(engine.allocateDevice("cuda:0", MIB).status.code == Code::notSupported);
}
