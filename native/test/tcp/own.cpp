// Our own framing between two ends.
#include "test/tcp/support.h"
#include "transport/tcp/frames.h"

#include <chrono>
#include <random>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace std::chrono_literals;

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

TEST(tcpOwn, batchesAgreeWithCopies) {
  std::mt19937 random(7);
  const size_t length = 3 << 20;
  Pair pair(length);
  for (int round = 0; round < 30; round++) {
    const bool write = round % 2 == 1;
    std::vector<u8>& from = write ? pair.local : pair.remote;
    std::vector<u8>& to = write ? pair.remote : pair.local;
    std::vector<u8> expected = to;
    std::vector<Record> records;
    // Disjoint in the destination, in any order.
    size_t at = 0;
    while (at < length) {
      const size_t gap = random() % 5000;
      const size_t bytes = std::min<size_t>(1 + (random() % 8 == 0 ? random() % 400'000 : random() % 9000), length - at);
      const size_t source = random() % (length - bytes + 1);
      std::copy_n(from.begin() + static_cast<long>(source), bytes, expected.begin() + static_cast<long>(at));
      records.push_back({write ? pair.localId : pair.remoteId, write ? pair.remoteId : pair.localId, source, at, bytes});
      at += bytes + gap;
    }
    std::shuffle(records.begin(), records.end(), random);
    REQUIRE(pair.client.move(write ? Op::write : Op::read, records, round % 3 != 0, 1 + random() % (1 << 20)).ok());
    CHECK(to == expected);
  }
}

TEST(tcpOwn, manySmallRequestsAtOnce) {
  Pair pair(1 << 20, {{"streams", "3"}});
  std::vector<Record> records;
  for (u64 i = 0; i < 16'384; i++) records.push_back({pair.remoteId, pair.localId, (16'383 - i) * 64, i * 64, 64});
  REQUIRE(pair.client.move(Op::read, records, true, 64).ok());
  for (size_t i = 0; i < 16'384; i++) {
    const auto from = pair.remote.begin() + static_cast<long>((16'383 - i) * 64);
    REQUIRE(std::equal(from, from + 64, pair.local.begin() + static_cast<long>(i * 64)));
  }
}

TEST(tcpOwn, moreRequestsThanThePeerAnswersAtOnce) {
  // Hundreds of answers that do not fit the socket, and requests that wait behind them.
  const size_t length = 1 << 20;
  Pair pair(length, {{"streams", "1"}});
  std::vector<Record> records;
  for (u64 i = 0; i < 900; i++) records.push_back({pair.remoteId, pair.localId, 0, 0, length});
  REQUIRE(pair.client.move(Op::read, records, false, length).ok());
  CHECK(pair.local == pair.remote);
}

TEST(tcpOwn, refusals) {
  Pair pair(1 << 16);
  std::vector<u8> constant = pattern(4096, 5);
  const std::vector<u8> before = constant;
  const u32 constantId = pair.server.add(constant, false);
  // What the peer announced is more than it has.
  pair.client.peer.setSegment({constantId, 0, 8192});
  pair.client.peer.setSegment({999, 0, 8192});
  const auto code = [&](Op op, u32 remote, u64 offset, u64 length) {
    const u32 from = op == Op::write ? pair.localId : remote;
    const u32 to = op == Op::write ? remote : pair.localId;
    return pair.client.move(op, {{from, to, op == Op::write ? 0 : offset, op == Op::write ? offset : 0, length}}).code;
  };
  CHECK(code(Op::read, constantId, 0, 4096) == Code::ok);
  CHECK(code(Op::write, constantId, 0, 4096) == Code::segment);
  CHECK(code(Op::read, constantId, 1, 4096) == Code::segment);
  CHECK(code(Op::read, 999, 0, 1) == Code::segment);
  CHECK(code(Op::write, 999, 0, 4096) == Code::segment);
  CHECK(constant == before);
  // The connection goes on.
  CHECK(code(Op::read, pair.remoteId, 0, 4096) == Code::ok);
  REQUIRE(pair.server.memory.remove(pair.remoteId, nullptr).ok());
  CHECK(code(Op::read, pair.remoteId, 0, 4096) == Code::segment);
}

TEST(tcpOwn, anotherRunOfThePeerIsRefused) {
  End server(1);
  Client client(server.listen(), {}, 2);
  for (const auto& link : client.links) {
    CHECK(link->state() == LinkState::down);
    CHECK(link->failure().code == Code::peer);
  }
  std::vector<u8> local(64);
  const u32 id = client.end.add(local);
  client.peer.setSegment({1, 0, 64});
  CHECK(client.move(Op::read, {{1, id, 0, 0, 64}}).code == Code::peer);
}

TEST(tcpOwn, nobodyListens) {
  u16 port;
  {
    End gone;
    port = gone.listen();
  }
  Client client(port, {}, 1);
  for (const auto& link : client.links) CHECK(link->state() == LinkState::down);
}

TEST(tcpOwn, openIsChecked) {
  End end;
  Peer peer("x", 1);
  Recorder recorder;
  const auto code = [&](const Settings& settings) { return end.tcp->open(settings, peer, recorder).status.code; };
  CHECK(code({{"port", "1"}}) == Code::invalidArgument);
  CHECK(code({{"host", "127.0.0.1"}}) == Code::invalidArgument);
  CHECK(code({{"host", "127.0.0.1"}, {"port", "0"}}) == Code::invalidArgument);
  CHECK(code({{"host", "127.0.0.1"}, {"port", "1"}, {"framing", "stock3"}}) == Code::invalidArgument);
  CHECK(code({{"host", "127.0.0.1"}, {"port", "1"}, {"streams", "17"}}) == Code::invalidArgument);
}

TEST(tcpOwn, namesAndIpv6) {
  for (const char* host : {"::1", "localhost"}) {
    std::vector<u8> remote = pattern(1000, 1);
    std::vector<u8> local(1000);
    End server(1);
    const u32 remoteId = server.add(remote);
    const u16 port = server.listen(host);
    Client client(port, {}, 1, host);
    const u32 localId = client.end.add(local);
    client.peer.setSegment({remoteId, 0, 1000});
    CHECK(client.move(Op::read, {{remoteId, localId, 0, 0, 1000}}).ok());
    CHECK(local == remote);
  }
}

TEST(tcpOwn, abortedBatchesLeaveMemoryAlone) {
  const size_t length = 64 << 20;
  std::vector<u8> note(64);
  Pair pair(length);
  const u32 noteId = pair.server.add(note);
  pair.client.peer.setSegment({noteId, 0, 64});
  for (int round = 0; round < 20; round++) {
    const Op op = round % 2 == 0 ? Op::read : Op::write;
    const size_t before = pair.client.recorder.count();
    const u32 from = op == Op::read ? pair.remoteId : pair.localId;
    const u32 to = op == Op::read ? pair.localId : pair.remoteId;
    Batch& batch = pair.client.post(op, {{from, to, 0, 0, length}}, round % 4 < 2);
    std::this_thread::sleep_for(std::chrono::microseconds(500 * round));
    for (const auto& link : pair.client.links) link->cancel(batch);
    REQUIRE(pair.client.recorder.wait(before + batch.slices().size()));
    if (op == Op::read) {
      const std::vector<u8> settled = pair.local;
      std::this_thread::sleep_for(5ms);
      CHECK(pair.local == settled);
    }
    for (const auto& entry : pair.client.recorder.entries()) {
      CHECK(entry.status.ok() || entry.status.code == Code::aborted);
    }
    // The connections are as good as before, and what is asked next comes after what was given up.
    for (const auto& link : pair.client.links) {
      CHECK(link->state() == LinkState::up);
      REQUIRE(pair.client.move(Op::read, {{noteId, pair.localId, 0, 0, 64}}).ok());
    }
    std::copy_n(pattern(4096, static_cast<u64>(round)).begin(), 4096, pair.remote.begin());
    REQUIRE(pair.client.move(Op::read, {{pair.remoteId, pair.localId, 0, 0, 4096}}).ok());
    CHECK(std::equal(pair.local.begin(), pair.local.begin() + 4096, pair.remote.begin()));
  }
}

TEST(tcpOwn, closingEndsWhatIsUnderWay) {
  Pair pair(32 << 20);
  Batch& batch = pair.client.post(Op::write, {{pair.localId, pair.remoteId, 0, 0, 32 << 20}});
  pair.client.close();
  CHECK(pair.client.recorder.count() == batch.slices().size());
  CHECK(pair.client.move(Op::read, {{pair.remoteId, pair.localId, 0, 0, 1}}).code == Code::closed);
}

TEST(tcpOwn, openingAndClosingLeaksNothing) {
  End server(1);
  const u16 port = server.listen();
  Client client(port, {}, 1);
  const size_t descriptors = openDescriptors();
  const size_t running = threads();
  for (int i = 0; i < 500; i++) {
    Peer peer("peer", 1);
    auto opened = client.end.tcp->open({{"host", "127.0.0.1"}, {"port", std::to_string(port)}}, peer, client.recorder);
    REQUIRE(opened.ok());
    if (i % 2 == 0) CHECK(End::settle(*opened.value[0]) == LinkState::up);
    for (const auto& link : opened.value) link->close();
  }
  for (int i = 0; i < 500 && openDescriptors() > descriptors; i++) std::this_thread::sleep_for(10ms);
  CHECK(openDescriptors() <= descriptors);
  CHECK(threads() == running);
}
