#include "test/rdma/support.h"
#include "transport/rdma/device.h"

#include <sys/mman.h>
#include <unistd.h>

namespace mooncake::test {

namespace {

/** What is said of the only device. */
Status reported(NullVerbs& verbs, const Settings& settings = {}) {
  const std::shared_ptr<Verbs> all(&verbs, [](Verbs*) {});
  const auto options = deviceOptions(settings);
  if (!options.ok()) return options.status;
  std::vector<DeviceReport> reports;
  openDevices(all, options.value, {}, reports);
  return reports.at(0).status;
}

}  // namespace

TEST(rdma_devices, what_cannot_be_used_is_named_with_its_cause) {
  auto fabric = std::make_shared<NullFabric>();
  NullVerbs verbs(fabric, 1);
  CHECK(reported(verbs).ok());
  CHECK(reported(verbs, {{"gidIndex", "1"}}).ok());
  const Status index = reported(verbs, {{"gidIndex", "3"}});
  CHECK(index.code == Code::notSupported && index.detail.find("null0") != std::string::npos);
  CHECK(index.detail.find("index 3") != std::string::npos);
  const Status unknown = reported(verbs, {{"devices", "mlx5_7"}});
  CHECK(unknown.code == Code::invalidArgument && unknown.detail.find("mlx5_7") != std::string::npos);
  const Status port = reported(verbs, {{"port", "2"}});
  CHECK(port.detail.find("no port 2") != std::string::npos);
  CHECK(reported(verbs, {{"gidIndex", "x"}}).code == Code::invalidArgument);
  CHECK(reported(verbs, {{"mtu", "100"}}).code == Code::invalidArgument);
  verbs.set(0, [](NullDevice& device) { device.state = IBV_PORT_DOWN; });
  const Status down = reported(verbs);
  CHECK(down.detail.find("no active port: port 1 is down") != std::string::npos);
  CHECK(verbs.idle());
}

TEST(rdma_devices, one_that_is_unusable_leaves_the_others) {
  auto fabric = std::make_shared<NullFabric>();
  Host host(fabric, 3, "a:1");
  CHECK(host.listening.value.at("devices") == "null0,null1,null2");
  auto second = std::make_shared<NullVerbs>(fabric, 3);
  second->set(1, [](NullDevice& device) { device.state = IBV_PORT_DOWN; });
  Engine engine(Host::options(second));
  const auto announced = engine.listen("rdma", {{"server", "b:1"}, {"devices", "null2, null1,null2,null9"}});
  REQUIRE(announced.ok());
  CHECK(announced.value.at("devices") == "null2");
  const auto none = engine.listen("rdma", {{"server", "b:1"}});
  CHECK(none.status.code == Code::invalidArgument);
  Engine other(Host::options(std::make_shared<NullVerbs>(fabric, 1)));
  const auto links = other.listen("rdma", {{"server", "c:1"}, {"links", "fastest"}});
  CHECK(links.status.code == Code::invalidArgument && links.status.detail.find("fastest") != std::string::npos);
  CHECK(other.listen("rdma", {{"server", "c:1"}, {"links", "round-robin"}}).ok());
}

TEST(rdma_devices, gids_are_texts_of_mooncake) {
  ibv_gid gid{};
  CHECK(parseGid("00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:01", gid));
  CHECK(gid.raw[10] == 0xff && gid.raw[15] == 1);
  CHECK(gidText(gid) == "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:01");
  for (const char* bad : {"", "00", "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:0g", "00-00-00-00-00-00-00-00-00-00-ff-ff-0a-4d-00-01",
                          "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:01:02"}) {
    CHECK(!parseGid(bad, gid));
  }
}

TEST(rdma_devices, what_a_dma_buf_holds_is_registered_as_one) {
  auto fabric = std::make_shared<NullFabric>();
  Host host(fabric, 2, "a:1");
  std::vector<u8> memory(4096);
  Segment segment;
  segment.base = memory.data();
  segment.length = memory.size();
  segment.dmabuf = ::memfd_create("dma-buf", MFD_CLOEXEC);
  const auto id = host.engine.memory().add(segment, {});
  CHECK(host.engine.expose("rdma", id.value).ok());
  CHECK(host.verbs->dmabufs == 2);
  std::promise<void> released;
  CHECK(host.engine.memory().remove(id.value, [&] { released.set_value(); }).ok());
  released.get_future().wait();
  host.verbs->set(0, [](NullDevice& device) { CHECK(device.regions.empty()); });
}

TEST(rdma_devices, without_any_nothing_listens) {
  auto fabric = std::make_shared<NullFabric>();
  auto verbs = std::make_shared<NullVerbs>(fabric, 0);
  Engine engine(Host::options(verbs));
  CHECK(engine.listen("rdma", {{"server", "a:1"}}).status.code == Code::notSupported);
  CHECK(engine.expose("rdma", 1).status.code == Code::notSupported);
  CHECK(!engine.accept("rdma", {{"peer_nic_path", "a:1@null0"}}).at("reply_msg").empty());
}

}  // namespace mooncake::test
