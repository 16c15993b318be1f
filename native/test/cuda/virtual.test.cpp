// Memory of cuMemCreate, handed over as a descriptor; rows; and which way copies are made.
#include "test/cuda/gpus.h"
#include "topology/pcie.h"
#include "transport/cuda/ways.h"

#include <unistd.h>

#include <cstring>

using namespace mooncake;
using namespace mooncake::test;

TEST(cudaVirtual, anAllocationIsMappedByItsDescriptor) {
  Gpus gpus;
  Bytes host(*gpus.engine, MIB);
  host.fill(8);
  const Expected<u32> own = gpus.engine->allocateVirtual("cuda:1", MIB - 5);
  REQUIRE(own.ok());
  REQUIRE(gpus.copy({{host.id, own.value, 0, 0, MIB - 5}}).status.ok());
  const Expected<cuda::ExportedFd> exported = gpus.engine->exportAllocation(own.value);
  REQUIRE(exported.ok());
  CHECK(exported.value.offset == 0 && exported.value.bytes == MIB);
  const cuda::Shared shared{cuda::HANDLE_POSIX_FD, exported.value.fd, {}, MIB};
  const Expected<u32> part = gpus.engine->mapDevice("cuda:1", {shared}, 64 * KIB, 100 * KIB);
  REQUIRE(part.ok());
  CHECK(gpus.engine->mapDevice("cuda:0", {shared}, 0, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->mapDevice("cuda:1", {shared}, MIB, 1).status.code == Code::invalidArgument);
  CHECK(gpus.engine->mapDevice("cuda:1", {cuda::Shared{cuda::HANDLE_POSIX_FD, 0, {}, MIB}}, 0, MIB).status.code == Code::invalidArgument);
  CHECK(gpus.engine->mapDevice("cuda:1", {cuda::Shared{cuda::HANDLE_FABRIC, -1, {}, MIB}}, 0, MIB).status.code == Code::notSupported);
  ::close(exported.value.fd);
  // The owner's segment goes; the pages stay for whoever has them mapped.
  gpus.remove(own.value);
  std::memset(host.data.data(), 0, 100 * KIB);
  const std::vector<u8> expected(host.data.begin() + 64 * KIB, host.data.begin() + 164 * KIB);
  Bytes back(*gpus.engine, 100 * KIB);
  REQUIRE(gpus.copy({{part.value, back.id, 36 * KIB, 36 * KIB, 64 * KIB}}).status.ok());
  CHECK(std::memcmp(back.data.data() + 36 * KIB, expected.data() + 36 * KIB, 64 * KIB) == 0);
  gpus.remove(part.value);
}

TEST(cudaVirtual, allocationsThatFollowEachOtherAreMappedAsOne) {
  Gpus gpus;
  Bytes host(*gpus.engine, 3 * MIB);
  host.fill(9);
  std::vector<u32> own;
  std::vector<cuda::Shared> shared;
  u64 from = 0;
  for (const u64 bytes : {MIB, 2 * MIB}) {
    const Expected<u32> id = gpus.engine->allocateVirtual("cuda:0", bytes);
    REQUIRE(id.ok());
    REQUIRE(gpus.copy({{host.id, id.value, from, 0, bytes}}).status.ok());
    const Expected<cuda::ExportedFd> exported = gpus.engine->exportAllocation(id.value);
    REQUIRE(exported.ok());
    own.push_back(id.value);
    shared.push_back({cuda::HANDLE_POSIX_FD, exported.value.fd, {}, bytes});
    from += bytes;
  }
  CHECK(gpus.engine->mapDevice("cuda:0", shared, MIB, 2 * MIB + 1).status.code == Code::invalidArgument);
  // The second one is none: the first is let go.
  CHECK(!gpus.engine->mapDevice("cuda:0", {shared[0], {cuda::HANDLE_POSIX_FD, 0, {}, MIB}}, 0, MIB).ok());
  const Expected<u32> whole = gpus.engine->mapDevice("cuda:0", shared, 512 * KIB, 2 * MIB);
  REQUIRE(whole.ok());
  for (const cuda::Shared& part : shared) ::close(part.fd);
  for (const u32 id : own) gpus.remove(id);
  Bytes back(*gpus.engine, 2 * MIB);
  // In this order they are no single piece: the simulation has each allocation's bytes in a place of its own.
  REQUIRE(gpus.copy({{whole.value, back.id, 512 * KIB, 512 * KIB, 1536 * KIB}, {whole.value, back.id, 0, 0, 512 * KIB}}).status.ok());
  CHECK(std::memcmp(back.data.data(), host.data.data() + 512 * KIB, 2 * MIB) == 0);
  gpus.remove(whole.value);
}

TEST(cudaVirtual, aFailureOnTheWayLeavesNothing) {
  for (const char* symbol : {"cuMemCreate", "cuMemAddressReserve", "cuMemMap", "cuMemSetAccess"}) {
    Gpus gpus;
    gpus.simulated.fail(symbol, cuda::OUT_OF_MEMORY);
    CHECK(gpus.engine->allocateVirtual("cuda:0", MIB).status.code == Code::outOfMemory);
    const Expected<u32> own = gpus.engine->allocateVirtual("cuda:0", MIB);
    REQUIRE(own.ok());
    const Expected<cuda::ExportedFd> exported = gpus.engine->exportAllocation(own.value);
    REQUIRE(exported.ok());
    if (std::string(symbol) != "cuMemCreate") gpus.simulated.fail(symbol, 1);
    const Expected<u32> mapped = gpus.engine->mapDevice("cuda:0", {cuda::Shared{cuda::HANDLE_POSIX_FD, exported.value.fd, {}, MIB}}, 0, MIB);
    CHECK(mapped.ok() == (std::string(symbol) == "cuMemCreate"));
    ::close(exported.value.fd);
  }
}

TEST(cudaVirtual, exportsWhatItIs) {
  Gpus gpus;
  const u32 plain = gpus.allocate(0, MIB);
  CHECK(gpus.engine->exportAllocation(plain).status.code == Code::invalidArgument);
  const Expected<cuda::ExportedFd> dmabuf = gpus.engine->exportDmabuf(plain);
  REQUIRE(dmabuf.ok());
  CHECK(dmabuf.value.bytes >= MIB && dmabuf.value.offset < 4096);
  CHECK(dmabuf.value.pci == (placeOfPci("0000:00:00.0") ? "0000:00:00.0" : ""));
  ::close(dmabuf.value.fd);
}

TEST(cudaRows, headsAreSplitAndJoinedInOnePass) {
  Gpus gpus;
  // 64 tokens of 4 heads of 256 bytes; two of the heads to a cache of their own.
  Bytes host(*gpus.engine, 64 * KIB);
  host.fill(6);
  const u32 all = gpus.allocate(0, 64 * KIB);
  const u32 half = gpus.allocate(1, 32 * KIB);
  REQUIRE(gpus.copy({{host.id, all, 0, 0, 64 * KIB}}).status.ok());
  BatchSpec split = Gpus::spec({{all, half, 512, 0, 512}, {all, half, 32 * KIB + 512, 16 * KIB, 512}});
  split.repeat = {32, 1024, 512};
  const BatchResult result = move(*gpus.engine, std::move(split));
  REQUIRE(result.status.ok());
  CHECK(result.bytes == 32 * KIB);
  bool same = true;
  for (u64 token = 0; token < 64; token++) {
    same = same && std::memcmp(gpus.bytes(half) + token * 512, host.data.data() + token * 1024 + 512, 512) == 0;
  }
  CHECK(same);
  BatchSpec leaving = Gpus::spec({{all, half, 512, 0, 512}});
  leaving.repeat = {64, 1024, 513};
  CHECK(move(*gpus.engine, std::move(leaving)).status.code == Code::segment);
  BatchSpec none = Gpus::spec({{all, half, 0, 0, 512}});
  none.repeat = {0, 0, 0};
  CHECK(move(*gpus.engine, std::move(none)).status.code == Code::invalidArgument);
  Bytes other(*gpus.engine, 64 * KIB);
  BatchSpec hosts = Gpus::spec({{host.id, other.id, 0, 0, 512}});
  hosts.repeat = {4, 1024, 512};
  CHECK(move(*gpus.engine, std::move(hosts)).status.code == Code::invalidArgument);
}

TEST(cudaWays, withoutAShareTheCopyEnginesDoIt) {
  Gpus gpus(1, 0);
  Bytes host(*gpus.engine, MIB);
  host.fill(1);
  const u32 device = gpus.allocate(0, MIB);
  const BatchResult result = gpus.copy({{host.id, device, 0, 4096, 1000}, {host.id, device, 2000, 0, 1000}}, true);
  REQUIRE(result.status.ok());
  CHECK(result.verifiedBytes == 0 && gpus.simulated.launches() == 0 && gpus.simulated.batches() == 1);
  CHECK(std::memcmp(gpus.bytes(device), host.data.data() + 2000, 1000) == 0);
}

TEST(cudaWays, theBetterWayIsFoundByMeasuring) {
  using cuda::Way;
  cuda::Ways ways(true, true);
  const cuda::Work work{false, true, 64 * MIB, 1024};
  const auto run = [&](double kernel, double engines) {
    int chosen[2] = {};
    for (int i = 0; i < 200; i++) {
      const Way way = ways.choose(work);
      chosen[static_cast<int>(way)]++;
      ways.took(work, way, 64 * MIB, 64.0 * MIB / (way == Way::kernel ? kernel : engines));
    }
    return chosen[1];
  };
  // About as fast: they cost the engine nothing.
  CHECK(run(50e9, 48e9) > 150);
  // The kernel is much faster, until another process computes on the GPU.
  CHECK(run(368e9, 136e9) < 60);
  CHECK(run(138e9, 136e9) > 100);
  // It takes turns with that process: now and then it finds the GPU free, and is over as if nobody else were there.
  int kernels = 0;
  for (int i = 0; i < 1000; i++) {
    const Way way = ways.choose(work);
    kernels += way == Way::kernel ? 1 : 0;
    ways.took(work, way, 64 * MIB, 64.0 * MIB / (way == Way::engines ? 28e9 : i % 4 == 0 ? 46e9 : 12e9));
  }
  CHECK(kernels < 60);
  // By MPS it does not take turns: what it costs the other process is not seen in its speed.
  cuda::Ways beside(true, true, true);
  for (int i = 0; i < 4; i++) {
    const Way way = beside.choose(work);
    beside.took(work, way, 64 * MIB, 64.0 * MIB / (way == Way::kernel ? 45e9 : 29e9));
  }
  CHECK(beside.choose(work) == Way::engines);
  // What goes one way alone has a speed all the same.
  const cuda::Work summed{false, true, 64 * MIB, 64};
  ways.took(summed, Way::kernel, 64 * MIB, 64.0 * MIB / 20e9);
  CHECK(ways.rate(summed) > 19e9 && ways.rate(summed) < 21e9);
  // Others kinds of work are judged for themselves.
  CHECK(ways.choose({false, false, 64 * MIB, 1024}) == Way::kernel);
}
