// Memory that the processor does not reach: what stands in for a dma-buf is a memfd, which only the devices map.
#include "memory/descriptor.h"
#include "memory/dmabuf.h"
#include "test/rdma/support.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace mooncake::test {

namespace {

constexpr u64 SIZE = 3 << 20;
/** Within a page. */
constexpr u64 OFFSET = 4096 * 3 + 512;

struct Dmabuf {
  explicit Dmabuf(Host& host, bool writable = true, const PciPlace& place = {}) : fd(::memfd_create("dma-buf", MFD_CLOEXEC)) {
    if (::ftruncate(fd.get(), OFFSET + SIZE) != 0) std::abort();
    id = addDmabuf(host.engine.memory(), fd.get(), OFFSET, SIZE, writable, place).value;
  }
  std::vector<u8> bytes() const {
    std::vector<u8> all(SIZE);
    if (::pread(fd.get(), all.data(), SIZE, OFFSET) != static_cast<ssize_t>(SIZE)) std::abort();
    return all;
  }
  void set(const std::vector<u8>& all) const {
    if (::pwrite(fd.get(), all.data(), SIZE, OFFSET) != static_cast<ssize_t>(SIZE)) std::abort();
  }

  Descriptor fd;
  u32 id = 0;
};

RemoteSegment announced(Host& host, u32 id) {
  const auto keys = host.engine.expose("rdma", id);
  auto remote = std::make_shared<std::vector<u32>>();
  for (const SegmentKey& key : keys.value) remote->push_back(key.remote);
  const SegmentRef held = host.engine.memory().hold(id);
  return {id, held->deviceAddress, held->length, std::move(remote)};
}

}  // namespace

TEST(rdma_dmabuf, is_written_and_read_by_nics_on_either_side) {
  Pair pair(2, 2);
  const Dmabuf ours(pair.a);
  const Dmabuf theirs(pair.b);
  Bytes plain(pair.a.engine, SIZE);
  plain.fill(5);
  pair.a.engine.setSegments(pair.peer, {announced(pair.b, theirs.id)});
  REQUIRE(pair.await(2));
  BatchResult result = pair.move(Op::write, {{plain.id, theirs.id, 0, 0, SIZE}});
  CHECK(result.status.ok() && result.bytes == SIZE);
  // Nobody can sum it.
  CHECK(result.verifiedBytes == 0);
  CHECK(theirs.bytes() == plain.data);
  result = pair.move(Op::read, {{theirs.id, ours.id, 0, 0, SIZE}});
  CHECK(result.status.ok() && result.bytes == SIZE && result.verifiedBytes == 0);
  CHECK(ours.bytes() == plain.data);
}

TEST(rdma_dmabuf, goes_by_the_nic_that_is_near_its_device) {
  // Two switches, each with a GPU and a NIC.
  const auto below = [](u64 upstream, u64 device) { return PciPlace{{1, upstream, upstream + 1, device}, 4, 0}; };
  const std::vector<PciPlace> nics = {below(10, 12), below(20, 22)};
  Pair pair(2, 2, {}, nics);
  Bytes theirs(pair.b.engine, SIZE);
  pair.a.engine.setSegments(pair.peer, {pair.b.announced(theirs)});
  REQUIRE(pair.await(2));
  constexpr u64 LENGTH = 64 << 10;
  const auto carried = [&](u32 nic) {
    u64 bytes = 0;
    pair.a.verbs->set(nic, [&](NullDevice& device) { bytes = device.bytes; });
    return bytes;
  };
  for (u32 near = 0; near < 2; near++) {
    const Dmabuf gpu(pair.a, true, below(near == 0 ? 10 : 20, 13 + 10 * near));
    const u64 before[] = {carried(0), carried(1)};
    REQUIRE(pair.move(Op::write, {{gpu.id, theirs.id, 0, 0, LENGTH}}).status.ok());
    REQUIRE(pair.move(Op::read, {{theirs.id, gpu.id, 0, 0, LENGTH}}).status.ok());
    CHECK(carried(near) - before[near] >= 2 * LENGTH);
    CHECK(carried(1 - near) - before[1 - near] < LENGTH);
  }
}

TEST(rdma_dmabuf, is_reached_by_nothing_else) {
  Pair pair(1, 1);
  const Dmabuf ours(pair.a);
  Bytes plain(pair.a.engine, SIZE);
  REQUIRE(pair.await(1));
  for (const Record& record : {Record{ours.id, plain.id, 0, 0, SIZE}, Record{plain.id, ours.id, 0, 0, SIZE}}) {
    const BatchResult result = move(pair.a.engine, {Op::copy, 0, {record}, soon(), true});
    CHECK(result.status.code == Code::notSupported);
  }
  const SegmentRef held = pair.a.engine.memory().hold(ours.id);
  CHECK(!pair.a.engine.memory().holdAddress(held->deviceAddress, 1));
}

TEST(rdma_dmabuf, what_cannot_be_one_is_refused) {
  auto fabric = std::make_shared<NullFabric>();
  Host host(fabric, 2, "a:1");
  MemoryTable& memory = host.engine.memory();
  CHECK(addDmabuf(memory, 9999, 0, 4096, true).status.detail.find("descriptor 9999") != std::string::npos);
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  CHECK(addDmabuf(memory, ends[0], 0, 4096, true).status.detail.find("no dma-buf") != std::string::npos);
  for (const int end : ends) ::close(end);
  const Descriptor small(::memfd_create("small", MFD_CLOEXEC));
  REQUIRE(::ftruncate(small.get(), 8192) == 0);
  CHECK(addDmabuf(memory, small.get(), 4096, 4097, true).status.code == Code::invalidArgument);
  CHECK(addDmabuf(memory, small.get(), UINT64_MAX, 4096, true).status.code == Code::invalidArgument);
  CHECK(addDmabuf(memory, small.get(), 0, 0, true).status.code == Code::invalidArgument);
  // One NIC takes it, and then none.
  const u32 id = addDmabuf(memory, small.get(), 0, 8192, true).value;
  host.verbs->set(0, [](NullDevice& device) { device.refusesDmabufs = true; });
  const auto keys = host.engine.expose("rdma", id);
  CHECK(keys.ok() && keys.value[0].remote == 0 && keys.value[1].remote != 0);
  host.verbs->set(1, [](NullDevice& device) { device.refusesDmabufs = true; });
  const auto none = host.engine.expose("rdma", addDmabuf(memory, small.get(), 0, 4096, true).value);
  CHECK(none.status.code == Code::notSupported);
  CHECK(none.status.detail.find("null0: registering 4096 bytes of a dma-buf") != std::string::npos);
}

}  // namespace mooncake::test
