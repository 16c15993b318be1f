// Links to stock peers: against a peer played byte by byte, and against our own serving of stock peers.
#include "test/tcp/support.h"
#include "transport/tcp/stock.h"

#include <chrono>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace std::chrono_literals;

namespace {

constexpr u64 ADDRESS = 0x700000000000;

/** A peer that the test plays, with one lane to it. */
struct Played {
  explicit Played(const char* framing)
      : client(listener.port(), {{"framing", framing}, {"streams", "1"}}), local(pattern(64 << 10, 1)),
        id(client.end.add(local)), lane(listener.accept()) {
    client.peer.setSegment({1, ADDRESS, 1 << 20});
    client.peer.setSegment({2, ADDRESS + (1 << 20), 1 << 20});
  }
  void read(u64 offset, u64 length) { client.post(Op::read, {{1, id, offset, 0, length}}); }
  Status outcome() {
    REQUIRE(client.recorder.wait(1));
    return client.recorder.entries().back().status;
  }

  PlainListener listener;
  Client client;
  std::vector<u8> local;
  u32 id;
  Plain lane;
};

}  // namespace

TEST(tcpStockLinks, version2ByteForByte) {
  Played peer("stock2");
  const std::vector<u8> first(peer.local.begin(), peer.local.begin() + 7);
  peer.client.post(Op::write, {{peer.id, 1, 0, 0, 7}});
  const std::vector<u8> head = peer.lane.receive(24);
  CHECK(head == hex("0700000000000000 0000000000700000 81 00000000000000"));
  CHECK(peer.lane.receive(7) == first);
  CHECK(peer.client.recorder.count() == 0);
  peer.lane.send(hex("00000000 5654434d"));
  CHECK(peer.outcome().ok());
  peer.read(0, 7);
  CHECK(peer.lane.receive(24) == hex("0700000000000000 0000000000700000 80 00000000000000"));
  // The status and the data in pieces.
  for (const u8 byte : hex("00000000 5654434d 61626364656667")) peer.lane.send(&byte, 1);
  REQUIRE(peer.client.recorder.wait(2));
  CHECK(std::equal(peer.local.begin(), peer.local.begin() + 7, "abcdefg"));
}

TEST(tcpStockLinks, version1ByteForByte) {
  Played peer("stock1");
  peer.client.post(Op::write, {{peer.id, 1, 0, 0, 7}});
  CHECK(peer.lane.receive(31).size() == 31);
  // Nothing acknowledges it but the answer to a read of its last byte.
  CHECK(peer.lane.receive(24) == hex("0100000000000000 0600000000700000 00 00000000000000"));
  peer.lane.send("x", 1);
  CHECK(peer.outcome().ok());
  peer.read(16, 7);
  CHECK(peer.lane.receive(24) == hex("0700000000000000 1000000000700000 00 00000000000000"));
  peer.lane.send("abcdefg", 7);
  REQUIRE(peer.client.recorder.wait(2));
  CHECK(std::equal(peer.local.begin(), peer.local.begin() + 7, "abcdefg"));
}

TEST(tcpStockLinks, neighboursAreOneRequestWithinASegment) {
  Played peer("stock2");
  // Two that are next to each other there, not here; then one in the next buffer, where the peer takes no range over both.
  const u64 end = (1 << 20) - 8;
  peer.client.post(Op::read, {{1, peer.id, end, 100, 4}, {1, peer.id, end + 4, 50, 4}, {2, peer.id, 0, 0, 4}});
  CHECK(peer.lane.receive(24) == hex("0800000000000000 f8ff0f0000700000 80 00000000000000"));
  peer.lane.send(hex("00000000 5654434d 4142434445464748"));
  CHECK(peer.lane.receive(24) == hex("0400000000000000 0000100000700000 80 00000000000000"));
  peer.lane.send(hex("00000000 5654434d 494a4b4c"));
  CHECK(peer.outcome().ok());
  CHECK(std::equal(peer.local.begin() + 100, peer.local.begin() + 104, "ABCD"));
  CHECK(std::equal(peer.local.begin() + 50, peer.local.begin() + 54, "EFGH"));
  CHECK(std::equal(peer.local.begin(), peer.local.begin() + 4, "IJKL"));
}

TEST(tcpStockLinks, endsOfThePeer) {
  // Rejected; closed in the midst of data; something else than a status.
  const std::vector<std::pair<std::vector<u8>, Code>> ends = {
      {hex("01000000 5654434d"), Code::segment},
      {hex("00000000 5654434d 6162"), Code::peer},
      {hex("00000000 00000000"), Code::peer},
      {{}, Code::peer},
  };
  for (const auto& [bytes, code] : ends) {
    Played peer("stock2");
    peer.read(0, 7);
    CHECK(peer.lane.receive(24).size() == 24);
    peer.lane.send(bytes);
    peer.lane.reset();
    CHECK(peer.outcome().code == code);
    // The lane is made again, and used.
    Plain again = peer.listener.accept();
    REQUIRE(End::settle(*peer.client.links[0]) == LinkState::up);
    peer.read(0, 1);
    CHECK(again.receive(24).size() == 24);
    again.send(hex("00000000 5654434d 55"));
    REQUIRE(peer.client.recorder.wait(2));
    CHECK(peer.client.recorder.entries()[1].status.ok());
  }
}

TEST(tcpStockLinks, aRejectionIsOneSlicesOwn) {
  Played peer("stock2");
  peer.read(0, 7);
  peer.read(8, 7);
  CHECK(peer.lane.receive(24).size() == 24);
  peer.lane.send(hex("01000000 5654434d"));
  Plain again = peer.listener.accept();
  CHECK(again.receive(24) == hex("0700000000000000 0800000000700000 80 00000000000000"));
  again.send(hex("00000000 5654434d 61626364656667"));
  REQUIRE(peer.client.recorder.wait(2));
  CHECK(peer.client.recorder.entries()[0].status.code == Code::segment);
  CHECK(peer.client.recorder.entries()[1].status.ok());
}

TEST(tcpStockLinks, cancelling) {
  Played peer("stock2");
  Batch& first = peer.client.post(Op::read, {{1, peer.id, 0, 0, 4096}});
  Batch& second = peer.client.post(Op::read, {{1, peer.id, 0, 4096, 4096}});
  CHECK(peer.lane.receive(24).size() == 24);
  peer.lane.send(hex("00000000 5654434d 61626364656667"));
  // The one that waits; the one under way, whose connection ends.
  peer.client.links[0]->cancel(second);
  CHECK(peer.client.recorder.count() == 1);
  peer.client.links[0]->cancel(first);
  REQUIRE(peer.client.recorder.wait(2));
  for (const auto& entry : peer.client.recorder.entries()) CHECK(entry.status.code == Code::aborted);
  const std::vector<u8> settled = peer.local;
  peer.lane.send(std::vector<u8>(4096, 0x77));
  CHECK(peer.lane.closed());
  std::this_thread::sleep_for(10ms);
  CHECK(peer.local == settled);
}

TEST(tcpStockLinks, bothWays) {
  for (const char* framing : {"stock1", "stock2"}) {
    const size_t length = 5'000'000;
    std::vector<u8> remote = pattern(length, 1);
    std::vector<u8> local = pattern(length, 2);
    End server(1);
    const u32 remoteId = server.add(remote);
    Client client(server.listen(), {{"framing", framing}});
    CHECK(client.links.size() == 4);
    CHECK(!client.links[0]->capabilities().verify);
    const u32 localId = client.end.add(local);
    client.peer.setSegment({remoteId, reinterpret_cast<u64>(remote.data()), length});
    REQUIRE(client.move(Op::read, {{remoteId, localId, 0, 0, length}}).ok());
    CHECK(local == remote);
    const std::vector<u8> changed = pattern(length, 3);
    std::copy(changed.begin(), changed.end(), local.begin());
    std::vector<Record> records;
    for (u64 i = 0; i < 1000; i++) records.push_back({localId, remoteId, (999 - i) * 5000, i * 5000, 5000});
    REQUIRE(client.move(Op::write, records, true, 100'000).ok());
    // Version 1 says nothing of the end of a write: a read over the same lane comes after it.
    std::vector<u8> back(length);
    const u32 backId = client.end.add(back);
    for (size_t lane = 0; lane < 4; lane++) REQUIRE(client.move(Op::read, {{remoteId, backId, 0, 0, 1}}).ok());
    REQUIRE(client.move(Op::read, {{remoteId, backId, 0, 0, length}}).ok());
    for (size_t i = 0; i < 1000; i++) {
      REQUIRE(std::equal(changed.begin() + static_cast<long>((999 - i) * 5000),
                         changed.begin() + static_cast<long>((999 - i) * 5000 + 5000),
                         back.begin() + static_cast<long>(i * 5000)));
    }
  }
}
