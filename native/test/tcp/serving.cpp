// What the port serves to stock peers and to whoever else comes, played byte by byte.
#include "test/tcp/support.h"
#include "transport/tcp/frames.h"
#include "transport/tcp/stock.h"

#include <chrono>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using mooncake::tcp::STOCK_REQUEST_BYTES;

namespace {

std::vector<u8> request(u64 size, const u8* address, bool write, bool status) {
  std::vector<u8> bytes(STOCK_REQUEST_BYTES);
  tcp::writeStockRequest(bytes.data(), {size, reinterpret_cast<u64>(address), write, status});
  return bytes;
}

const std::vector<u8> ACCEPTED = hex("00000000 5654434d");
const std::vector<u8> REJECTED = hex("01000000 5654434d");

std::vector<u8> operator+(std::vector<u8> a, const std::vector<u8>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Served {
  Served() : bytes(pattern(1 << 20, 1)), before(bytes), constant(pattern(4096, 2)) {
    end.add(bytes);
    end.add(constant, false);
    end.context.handshake = [](u8 type, std::string json, std::function<void(std::string)> reply) {
      // From another thread, as JavaScript does.
      std::thread([=] { reply("{\"type\":" + std::to_string(type) + ",\"bytes\":" + std::to_string(json.size()) + "}\n"); })
          .detach();
    };
    port = end.listen();
  }
  bool alive() {
    Plain peer(port);
    return peer.send(request(3, bytes.data(), false, true)) && peer.receive(8) == ACCEPTED;
  }

  std::vector<u8> bytes;
  const std::vector<u8> before;
  std::vector<u8> constant;
  End end;
  u16 port = 0;
};

}  // namespace

TEST(tcpServing, stockVersion2) {
  Served served;
  Plain peer(served.port);
  const std::vector<u8> data = pattern(100'000, 5);
  // Several requests over one connection, the first byte by byte.
  for (const u8 byte : request(7, served.bytes.data(), true, true) + hex("01020304050607")) REQUIRE(peer.send(&byte, 1));
  CHECK(peer.receive(8) == ACCEPTED);
  CHECK(std::equal(served.bytes.begin(), served.bytes.begin() + 7, hex("01020304050607").begin()));
  REQUIRE(peer.send(request(7, served.bytes.data(), false, true)));
  CHECK(peer.receive(15) == ACCEPTED + hex("01020304050607"));
  REQUIRE(peer.send(request(data.size(), served.bytes.data() + 1000, true, true) + data));
  CHECK(peer.receive(8) == ACCEPTED);
  REQUIRE(peer.send(request(data.size(), served.bytes.data() + 1000, false, true)));
  CHECK(peer.receive(8 + data.size()) == ACCEPTED + data);
  // Pipelined, though stock peers do not.
  std::vector<u8> many;
  for (int i = 0; i < 5000; i++) many = many + request(1, served.bytes.data() + i, false, true);
  std::thread sender([&] { CHECK(peer.send(many)); });
  const std::vector<u8> answers = peer.receive(5000 * 9);
  sender.join();
  REQUIRE(answers.size() == 5000 * 9);
  for (size_t i = 0; i < 5000; i++) REQUIRE(answers[i * 9 + 8] == served.bytes[i]);
}

TEST(tcpServing, stockVersion1) {
  Served served;
  Plain peer(served.port);
  const std::vector<u8> data = pattern(70'000, 6);
  REQUIRE(peer.send(request(data.size(), served.bytes.data() + 5, true, false) + data));
  // Version 1 acknowledges nothing; requests are served in order.
  REQUIRE(peer.send(request(data.size(), served.bytes.data() + 5, false, false)));
  CHECK(peer.receive(data.size()) == data);
}

TEST(tcpServing, rejections) {
  Served served;
  const u8* const base = served.bytes.data();
  const u64 size = served.bytes.size();
  const std::vector<std::vector<u8>> bad = {
      request(8, reinterpret_cast<const u8*>(0x1000), false, true), request(size + 1, base, false, true),
      request(2, base + size - 1, false, true),                      request(2, base - 1, true, true),
      request(~u64{0} >> 17, base, false, true),                     request(8, served.constant.data(), true, true),
  };
  for (const std::vector<u8>& bytes : bad) {
    Plain peer(served.port);
    REQUIRE(peer.send(bytes));
    CHECK(peer.receive(8) == REJECTED);
    CHECK(peer.closed());
  }
  // Not the first request, where what it is was not told by classify().
  for (const u64 length : {u64{0}, ~u64{0}}) {
    Plain peer(served.port);
    REQUIRE(peer.send(request(1, base, false, true)));
    CHECK(peer.receive(9).size() == 9);
    REQUIRE(peer.send(request(length, base, false, true)));
    CHECK(peer.receive(8) == REJECTED);
    CHECK(peer.closed());
  }
  Plain old(served.port);
  REQUIRE(old.send(request(8, reinterpret_cast<const u8*>(0x1000), false, false)));
  CHECK(old.closed());
  Plain constant(served.port);
  REQUIRE(constant.send(request(8, served.constant.data(), false, true)));
  CHECK(constant.receive(16).size() == 16);
  CHECK(served.bytes == served.before);
  CHECK(served.alive());
}

TEST(tcpServing, unregisteredMemoryIsNotTouched) {
  Served served;
  std::vector<u8> bytes = pattern(64 << 10, 3);
  const u32 id = served.end.add(bytes);
  Plain peer(served.port);
  REQUIRE(peer.send(request(8, bytes.data(), false, true)));
  CHECK(peer.receive(16).size() == 16);
  REQUIRE(served.end.memory.remove(id, nullptr).ok());
  REQUIRE(peer.send(request(8, bytes.data(), true, true)));
  CHECK(peer.receive(8) == REJECTED);
}

TEST(tcpServing, handshakes) {
  Served served;
  for (const u8 type : {0, 1, 2, 3}) {
    for (const size_t length : {size_t{2}, size_t{3}, size_t{500}, size_t{1'000'000}}) {
      const std::string json = "{" + std::string(length - 2, ' ') + "}";
      const std::string text = tcp::handshakeFrame({type, true, json});
      Plain peer(served.port);
      REQUIRE(peer.send(text.data(), 5));
      REQUIRE(peer.send(text.data() + 5, text.size() - 5));
      const std::string answer = tcp::handshakeFrame(
          {type, true, "{\"type\":" + std::to_string(type) + ",\"bytes\":" + std::to_string(length) + "}\n"});
      const std::vector<u8> received = peer.receive(answer.size());
      CHECK(std::string(received.begin(), received.end()) == answer);
      CHECK(peer.closed());
    }
  }
  const std::string old = tcp::handshakeFrame({0, false, "{\"a\":1}"});
  Plain peer(served.port);
  REQUIRE(peer.send(old.data(), old.size()));
  peer.shutdownWrite();
  const std::string answer = tcp::handshakeFrame({0, false, "{\"type\":0,\"bytes\":7}\n"});
  const std::vector<u8> received = peer.receive(answer.size());
  CHECK(std::string(received.begin(), received.end()) == answer);
}

TEST(tcpServing, garbage) {
  Served served;
  for (u64 seed = 1; seed <= 300; seed++) {
    std::vector<u8> bytes = pattern(1 + seed * 7 % 3000, seed);
    // A third begins as our own framing does, and one as data.
    if (seed % 3 == 0) {
      bytes.resize(std::max<size_t>(bytes.size(), tcp::HELLO_BYTES));
      tcp::writeHello(bytes.data(), {});
    }
    if (seed % 3 == 1 && bytes.size() > 24) {
      const std::vector<u8> good = request(5, served.bytes.data(), false, true);
      std::copy(good.begin(), good.end(), bytes.begin());
    }
    Plain peer(served.port);
    peer.send(bytes);
    peer.shutdownWrite();
    // Whatever it says, in the end it closes.
    while (!peer.receive(1 << 16).empty()) {
    }
  }
  CHECK(served.bytes == served.before);
  CHECK(served.alive());
}

TEST(tcpServing, slowReadersHoldUpNobody) {
  Served served;
  std::vector<u8> large = pattern(64 << 20, 9);
  served.end.add(large);
  Plain slow(served.port);
  REQUIRE(slow.send(request(large.size(), large.data(), false, true)));
  for (int i = 0; i < 20; i++) CHECK(served.alive());
  const std::vector<u8> received = slow.receive(8 + large.size());
  REQUIRE(received.size() == 8 + large.size());
  CHECK(std::equal(large.begin(), large.end(), received.begin() + 8));
}

TEST(tcpServing, halvesOfWritesChangeNothingElse) {
  Served served;
  for (const size_t part : {size_t{0}, size_t{10}, size_t{50'000}}) {
    Plain peer(served.port);
    REQUIRE(peer.send(request(100'000, served.bytes.data() + 4096, true, true) + pattern(part, 4)));
    peer.shutdownWrite();
    CHECK(peer.closed());
  }
  CHECK(std::equal(served.bytes.begin(), served.bytes.begin() + 4096, served.before.begin()));
  CHECK(std::equal(served.bytes.begin() + 104'096, served.bytes.end(), served.before.begin() + 104'096));
  CHECK(served.alive());
}

TEST(tcpServing, leaksNothing) {
  Served served;
  CHECK(served.alive());
  const size_t descriptors = openDescriptors();
  const size_t running = threads();
  for (int i = 0; i < 1000; i++) {
    Plain peer(served.port);
    if (i % 4 == 1) peer.send(request(1, served.bytes.data(), false, true));
    if (i % 4 == 2) peer.send(request(100, served.bytes.data(), true, true));
    if (i % 4 == 3) peer.send("MKTS", 4);
  }
  for (int i = 0; i < 500 && openDescriptors() > descriptors; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(openDescriptors() <= descriptors);
  CHECK(threads() == running);
  CHECK(served.alive());
}

TEST(tcpServing, addresses) {
  End end;
  const u16 port = end.listen("::1");
  CHECK(port > 0);
  CHECK(end.tcp->listen({{"host", "127.0.0.1"}, {"port", "65536"}}).status.code == Code::invalidArgument);
  CHECK(end.tcp->listen({{"host", "127.0.0.1"}, {"port", "-1"}}).status.code == Code::invalidArgument);
  CHECK(end.tcp->listen({{"host", "no such host"}}).status.code == Code::invalidArgument);
  const u16 taken = end.listen();
  CHECK(end.tcp->listen({{"port", std::to_string(taken)}}).status.code == Code::system);
  // An end that closed gives its port back.
  end.tcp->close();
  End other;
  CHECK(other.listen("127.0.0.1", taken) == taken);
  CHECK(end.tcp->listen({}).status.code == Code::closed);
}
