// Two engines with NICs of one fabric, which carry each other's handshakes as TypeScript does.
#pragma once

#include "test/check.h"
#include "test/engine/support.h"
#include "test/rdma/null_verbs.h"

#include <atomic>

namespace mooncake::test {

/** An engine with null devices. */
struct Host {
  /** `places`: of its devices, where they have some. */
  Host(const std::shared_ptr<NullFabric>& fabric, u32 devices, const std::string& called, Settings settings = {},
       const std::vector<PciPlace>& places = {})
      : name(called), verbs(std::make_shared<NullVerbs>(fabric, devices)), engine(options(verbs)) {
    for (u32 i = 0; i < places.size(); i++) verbs->device(i).place = places[i];
    settings["server"] = name;
    listening = engine.listen("rdma", settings);
  }

  static EngineOptions options(const std::shared_ptr<NullVerbs>& verbs) {
    EngineOptions wanted;
    wanted.transports = {"rdma"};
    wanted.verbs = verbs;
    return wanted;
  }

  RemoteSegment announced(const Bytes& bytes) {
    const auto keys = engine.expose("rdma", bytes.id);
    auto remote = std::make_shared<std::vector<u32>>();
    for (const SegmentKey& key : keys.value) remote->push_back(key.remote);
    return {bytes.id, reinterpret_cast<u64>(bytes.data.data()), bytes.data.size(), std::move(remote)};
  }

  std::string name;
  std::shared_ptr<NullVerbs> verbs;
  Engine engine;
  Expected<Settings> listening{Settings{}};
};

struct Pair {
  explicit Pair(u32 near, u32 far, Settings endpoint = {}, const std::vector<PciPlace>& places = {})
      : a(fabric, near, "a:1", {}, places), b(fabric, far, "b:1") {
    a.engine.onShake([this](const std::string&, Settings request, std::function<void(Expected<Settings>)> answer) {
      handshakes++;
      if (unreachable) return answer(Status(Code::peer, "nobody answers"));
      Settings said = b.engine.accept("rdma", request);
      if (alter) alter(said);
      answer(std::move(said));
    });
    for (const auto& [key, value] : b.listening.value) endpoint.emplace(key, value);
    peer = a.engine.openPeer("b:1", b.engine.generation(), {{"rdma", endpoint}}).value;
  }

  BatchSpec spec(Op op, std::vector<Record> records, int milliseconds = 20000, bool verify = true) {
    return {op, peer, std::move(records), soon(milliseconds), verify};
  }
  BatchResult move(Op op, std::vector<Record> records, int milliseconds = 20000, bool verify = true) {
    return test::move(a.engine, spec(op, std::move(records), milliseconds, verify));
  }
  /** Links that are up, beside that for copies. */
  size_t alive() const {
    const std::string text = a.engine.statistics();
    size_t count = 0;
    for (size_t at = 0; (at = text.find("\"alive\":true", at)) != std::string::npos; at++) count++;
    return count - 1;
  }
  bool await(size_t links, int milliseconds = 10000) const {
    const auto until = soon(milliseconds);
    while (alive() != links && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return alive() == links;
  }

  std::shared_ptr<NullFabric> fabric = std::make_shared<NullFabric>();
  Host a;
  Host b;
  u32 peer = 0;
  std::atomic<u32> handshakes{0};
  std::atomic<bool> unreachable{false};
  std::function<void(Settings&)> alter;
};

}  // namespace mooncake::test
