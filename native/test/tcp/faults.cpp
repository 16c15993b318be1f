// Our own framing over a relay that changes, holds back and breaks what passes.
#include "test/tcp/support.h"
#include "transport/tcp/frames.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace std::chrono_literals;

namespace {

/** Connects whoever comes to a port, both ways, byte for byte, until told otherwise. */
class Relay {
 public:
  explicit Relay(u16 target) : target_(target), thread_([this] { work(); }) {}
  ~Relay() {
    stop_ = true;
    thread_.join();
  }
  u16 port() const { return listener_.port(); }

  /** Counted from now, this byte towards the client (or the server) is changed. */
  void corrupt(bool towardsClient, long at) { (towardsClient ? toClient_ : toServer_) = at; }
  void hold(bool holding) { holding_ = holding; }
  /** Ends all connections there are. */
  void cut() {
    cut_ = true;
    while (cut_) std::this_thread::sleep_for(1ms);
  }
  int accepted() const { return accepted_; }

 private:
  struct Connection {
    Plain client;
    Plain server;
  };

  void pass(int from, int to, std::atomic<long>& corruptAt) {
    u8 bytes[16 << 10];
    const ssize_t count = ::recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      cut_ = true;
      return;
    }
    const long at = corruptAt;
    if (at >= 0 && at < count) bytes[at] ^= 0x10;
    if (at >= 0) corruptAt = at < count ? -1 : at - count;
    for (ssize_t done = 0; done < count && !stop_ && !cut_;) {
      const ssize_t sent = ::send(to, bytes + done, static_cast<size_t>(count - done), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) done += sent;
      if (sent < 0 && errno != EAGAIN) cut_ = true;
      // The other direction is not held up for ever: both ends read.
      if (sent < 0) std::this_thread::sleep_for(100us);
    }
  }

  void work() {
    std::vector<Connection> connections;
    while (!stop_) {
      pollfd waiting{listener_.fd(), POLLIN, 0};
      if (::poll(&waiting, 1, connections.empty() ? 5 : 0) == 1) {
        connections.push_back({listener_.accept(), Plain(target_)});
        accepted_++;
      }
      if (!holding_) {
        for (Connection& connection : connections) {
          pass(connection.client.fd(), connection.server.fd(), toServer_);
          pass(connection.server.fd(), connection.client.fd(), toClient_);
        }
      }
      if (cut_) {
        connections.clear();
        cut_ = false;
      }
      std::this_thread::sleep_for(50us);
    }
  }

  const u16 target_;
  PlainListener listener_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> cut_{false};
  std::atomic<bool> holding_{false};
  std::atomic<long> toClient_{-1};
  std::atomic<long> toServer_{-1};
  std::atomic<int> accepted_{0};
  std::thread thread_;
};

constexpr size_t LENGTH = 4 << 20;

struct Relayed {
  Relayed()
      : remote(pattern(LENGTH, 1)), local(pattern(LENGTH, 2)), remoteId(server.add(remote)), relay(server.listen()),
        client(relay.port(), {{"streams", "1"}}, 1), localId(client.end.add(local)) {
    client.peer.setSegment({remoteId, 0, LENGTH});
    REQUIRE(client.links[0]->state() == LinkState::up);
  }
  Status read(u64 length = LENGTH, bool verify = true) {
    return client.move(Op::read, {{remoteId, localId, 0, 0, length}}, verify);
  }
  Status write(u64 length = LENGTH, bool verify = true) {
    return client.move(Op::write, {{localId, remoteId, 0, 0, length}}, verify);
  }
  bool upAgain() {
    for (int i = 0; i < 1000 && client.links[0]->state() != LinkState::up; i++) std::this_thread::sleep_for(5ms);
    return client.links[0]->state() == LinkState::up;
  }

  std::vector<u8> remote;
  std::vector<u8> local;
  End server{1};
  u32 remoteId;
  Relay relay;
  Client client;
  u32 localId;
};

}  // namespace

TEST(tcpFaults, changedBytesAreFound) {
  Relayed ends;
  REQUIRE(ends.read().ok());
  // In the data of a read; then in that of a write.
  ends.relay.corrupt(true, 500'000);
  CHECK(ends.read().code == Code::corrupt);
  ends.relay.corrupt(false, 500'000);
  CHECK(ends.write().code == Code::corrupt);
  // Not asked for, not found.
  ends.relay.corrupt(true, 500'000);
  CHECK(ends.read(LENGTH, false).ok());
  CHECK(ends.local != ends.remote);
  // In a frame: the connection is of no use, and is made again.
  for (const bool towardsClient : {true, false}) {
    REQUIRE(ends.upAgain());
    ends.relay.corrupt(towardsClient, 3);
    CHECK(ends.read().code == Code::peer);
  }
  REQUIRE(ends.upAgain());
  CHECK(ends.read().ok());
  CHECK(ends.local == ends.remote);
}

TEST(tcpFaults, brokenConnectionsAreMadeAgain) {
  Relayed ends;
  for (int i = 0; i < 10; i++) {
    const size_t before = ends.client.recorder.count();
    Batch& batch = ends.client.post(i % 2 == 0 ? Op::read : Op::write,
                                    {{i % 2 == 0 ? ends.remoteId : ends.localId, i % 2 == 0 ? ends.localId : ends.remoteId,
                                      0, 0, LENGTH}});
    std::this_thread::sleep_for(std::chrono::microseconds(300 * i));
    ends.relay.cut();
    REQUIRE(ends.client.recorder.wait(before + batch.slices().size()));
    REQUIRE(ends.upAgain());
  }
  for (const auto& entry : ends.client.recorder.entries()) {
    CHECK(entry.status.ok() || entry.status.code == Code::peer);
  }
  REQUIRE(ends.read().ok());
  CHECK(ends.local == ends.remote);
}

TEST(tcpFaults, silentPeersAreDead) {
  Relayed ends;
  for (const bool write : {false, true}) {
    REQUIRE(ends.upAgain());
    ends.relay.hold(true);
    const Status status = write ? ends.write() : ends.read();
    CHECK(status.code == Code::peer);
    CHECK(status.detail.find("silent") != std::string::npos);
    ends.relay.hold(false);
  }
  REQUIRE(ends.upAgain());
  CHECK(ends.read().ok());
}

TEST(tcpFaults, slowPeersAreNot) {
  Relayed ends;
  const int accepted = ends.relay.accepted();
  // Longer than the silence that is allowed, with pauses shorter than it.
  ends.client.post(Op::read, {{ends.remoteId, ends.localId, 0, 0, LENGTH}});
  for (int i = 0; i < 8; i++) {
    ends.relay.hold(true);
    std::this_thread::sleep_for(200ms);
    ends.relay.hold(false);
    std::this_thread::sleep_for(1ms);
  }
  REQUIRE(ends.client.recorder.wait(4));
  for (const auto& entry : ends.client.recorder.entries()) CHECK(entry.status.ok());
  // An idle connection stays, too.
  std::this_thread::sleep_for(1500ms);
  CHECK(ends.read().ok());
  CHECK(ends.relay.accepted() == accepted);
}

TEST(tcpFaults, serversThatLie) {
  using namespace mooncake::tcp;
  const auto frame = [](const Frame& value) {
    std::vector<u8> bytes(FRAME_BYTES);
    writeFrame(bytes.data(), value);
    return bytes;
  };
  // To the first request, which has id 1 and asks for 4096 bytes.
  const std::vector<std::vector<u8>> lies = {
      frame({FrameType::done, true, Code::ok, 1}),           frame({FrameType::done, true, Code::ok, 2}),
      frame({FrameType::data, false, Code::ok, 1, 0, 4095}), frame({FrameType::data, false, Code::ok, 1, 0, 1 << 20}),
      frame({FrameType::data, false, Code::ok, 9, 0, 4096}), frame({FrameType::end, false, Code::ok, 1}),
      frame({FrameType::read, false, Code::ok, 1, 1, 4096}), std::vector<u8>(40, 0xee),
  };
  PlainListener listener;
  std::atomic<bool> stop{false};
  std::atomic<size_t> next{0};
  std::thread server([&] {
    std::vector<Plain> open;
    while (!stop) {
      pollfd waiting{listener.fd(), POLLIN, 0};
      if (::poll(&waiting, 1, 10) != 1) continue;
      Plain peer = listener.accept();
      std::vector<u8> hello(HELLO_BYTES);
      writeHello(hello.data(), {VERSION, 0, 1});
      if (peer.receive(HELLO_BYTES).size() < HELLO_BYTES || !peer.send(hello)) continue;
      if (peer.receive(FRAME_BYTES + RECORD_BYTES).size() > 0) peer.send(lies[next++ % lies.size()]);
      open.push_back(std::move(peer));
    }
  });
  for (size_t i = 0; i < lies.size(); i++) {
    Client client(listener.port(), {{"streams", "1"}}, 1);
    std::vector<u8> local(8192);
    const u32 id = client.end.add(local);
    client.peer.setSegment({1, 0, 4096});
    const Status status = client.move(Op::read, {{1, id, 0, 0, 4096}});
    CHECK(status.code == Code::peer);
    CHECK(status.detail.find("silent") == std::string::npos);
    CHECK(local == std::vector<u8>(8192));
  }
  stop = true;
  server.join();
}
