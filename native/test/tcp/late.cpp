// Writes that were given up or failed, while the network still has their bytes: what is written afterwards over another
// stream stays, whenever they arrive.
#include "test/tcp/support.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace std::chrono_literals;

namespace {

/** Passes on what it is sent. The first connection that brings many bytes is held, when that is wanted: from then on nothing
    comes through, until it is released; then all that it was sent reaches the server, as if its client were still there. */
class HoldingRelay {
 public:
  explicit HoldingRelay(u16 target) : target_(target), thread_([this] { work(); }) {}
  ~HoldingRelay() {
    stop_ = true;
    thread_.join();
  }
  u16 port() const { return listener_.port(); }
  /** After so many bytes of one connection. */
  void holdAfter(size_t bytes) {
    after_ = bytes;
    armed_ = true;
  }
  void waitUntilHeld() const {
    while (!held_) std::this_thread::sleep_for(1ms);
  }
  void release() { released_ = true; }
  /** The server has closed what was held. */
  void waitUntilEnded() const {
    for (int i = 0; i < 2000 && !ended_; i++) std::this_thread::sleep_for(5ms);
  }

 private:
  struct Connection {
    Plain client;
    Plain server;
    std::vector<u8> waiting;
    size_t passed = 0;
    bool held = false;
    bool clientGone = false;
    bool gone = false;
  };

  static ssize_t take(int fd, std::vector<u8>& bytes) {
    bytes.resize(64 << 10);
    const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(count > 0 ? static_cast<size_t>(count) : 0);
    return count < 0 && errno == EAGAIN ? -1 : std::max<ssize_t>(count, 0);
  }

  void pass(Connection& connection) {
    std::vector<u8> bytes;
    if (!connection.clientGone) {
      if (take(connection.client.fd(), bytes) == 0) connection.clientGone = true;
      connection.passed += bytes.size();
      connection.waiting.insert(connection.waiting.end(), bytes.begin(), bytes.end());
    }
    if (armed_ && connection.passed >= after_) {
      connection.held = true;
      armed_ = false;
      held_ = true;
    }
    if (connection.held && !released_) return;
    if (!connection.waiting.empty()) {
      const ssize_t sent = ::send(connection.server.fd(), connection.waiting.data(), connection.waiting.size(),
                                  MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) connection.waiting.erase(connection.waiting.begin(), connection.waiting.begin() + sent);
    } else if (connection.clientGone) {
      connection.server.shutdownWrite();
    }
    if (take(connection.server.fd(), bytes) == 0) {
      connection.gone = true;
      ended_ = ended_ || connection.held;
    }
    if (!bytes.empty() && !connection.clientGone) connection.client.send(bytes);
  }

  void work() {
    std::vector<Connection> connections;
    while (!stop_) {
      pollfd waiting{listener_.fd(), POLLIN, 0};
      if (::poll(&waiting, 1, 0) == 1) connections.push_back({listener_.accept(), Plain(target_), {}});
      for (Connection& connection : connections) {
        if (!connection.gone) pass(connection);
        if (connection.gone) connection.client.reset();
      }
      std::this_thread::sleep_for(100us);
    }
  }

  const u16 target_;
  PlainListener listener_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> armed_{false};
  std::atomic<size_t> after_{0};
  std::atomic<bool> held_{false};
  std::atomic<bool> released_{false};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

constexpr size_t LENGTH = 1 << 20;

struct Relayed {
  Relayed()
      : remote(LENGTH), old(pattern(LENGTH, 1)), fresh(pattern(LENGTH, 2)), remoteId(server.add(remote)),
        relay(server.listen()), client(relay.port(), {{"streams", "2"}}, 1), oldId(client.end.add(old)),
        freshId(client.end.add(fresh)) {
    client.peer.setSegment({remoteId, 0, LENGTH});
    REQUIRE(client.links[0]->state() == LinkState::up && client.links[1]->state() == LinkState::up);
  }

  std::vector<u8> remote;
  std::vector<u8> old;
  std::vector<u8> fresh;
  End server{1};
  u32 remoteId;
  HoldingRelay relay;
  Client client;
  u32 oldId;
  u32 freshId;
};

}  // namespace

TEST(tcpLate, writesThatFailed) {
  Relayed ends;
  // Before the server has seen anything of it: it waits for nothing.
  ends.relay.holdAfter(1000);
  CHECK(ends.client.move(Op::write, {{ends.oldId, ends.remoteId, 0, 0, LENGTH}}).code == Code::peer);
  REQUIRE(ends.client.move(Op::write, {{ends.freshId, ends.remoteId, 0, 0, LENGTH}}).ok());
  CHECK(ends.remote == ends.fresh);
  ends.relay.release();
  ends.relay.waitUntilEnded();
  CHECK(ends.remote == ends.fresh);
}

TEST(tcpLate, writesThatWereGivenUp) {
  // In the midst of their data, and behind it: when the peer could have answered.
  for (const size_t after : {size_t{100'000}, LENGTH}) {
    Relayed ends;
    ends.relay.holdAfter(after);
    Batch& batch = ends.client.post(Op::write, {{ends.oldId, ends.remoteId, 0, 0, LENGTH}});
    ends.relay.waitUntilHeld();
    for (const auto& link : ends.client.links) link->cancel(batch);
    REQUIRE(ends.client.recorder.wait(1));
    CHECK(ends.client.recorder.entries()[0].status.code == Code::aborted);
    REQUIRE(ends.client.move(Op::write, {{ends.freshId, ends.remoteId, 0, 0, LENGTH}}).ok());
    ends.relay.release();
    ends.relay.waitUntilEnded();
    CHECK(ends.remote == ends.fresh);
  }
}
