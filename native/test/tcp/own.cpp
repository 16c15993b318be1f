// Our own framing between two ends.
#include "test/tcp/support.h"

#include <chrono>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;

namespace {

struct Pair {
  explicit Pair(size_t length, const Settings& settings = {})
      : remote(pattern(length, 1)), local(pattern(length, 2)), remoteId(server.add(remote)),
        client(server.listen(), settings, 1), localId(client.end.add(local)) {
    client.peer.setSegment({remoteId, reinterpret_cast<u64>(remote.data()), length});
    for (const auto& link : client.links) REQUIRE(link->state() == LinkState::up);
  }

  std::vector<u8> remote;
  std::vector<u8> local;
  End server{1};
  u32 remoteId;
  Client client;
  u32 localId;
};

}  // namespace

TEST(tcpOwn, readsAndWrites) {
  for (const bool verify : {true, false}) {
    for (const size_t length : {size_t{1}, size_t{4096}, size_t{65'537}, size_t{9'000'001}}) {
      Pair pair(length);
      const std::vector<u8> theirs = pair.remote;
      REQUIRE(pair.client.move(Op::read, {{pair.remoteId, pair.localId, 0, 0, length}}, verify).ok());
      CHECK(pair.local == theirs);
      CHECK(pair.remote == theirs);
      const std::vector<u8> ours = pattern(length, 3);
      std::copy(ours.begin(), ours.end(), pair.local.begin());
      REQUIRE(pair.client.move(Op::write, {{pair.localId, pair.remoteId, 0, 0, length}}, verify).ok());
      CHECK(pair.remote == ours);
      CHECK(pair.local == ours);
    }
  }
}
