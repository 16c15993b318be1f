// The stock wire's bytes, by the examples of its description, and telling apart what a connection speaks.
#include "transport/tcp/stock.h"

#include "test/tcp/support.h"
#include "transport/tcp/frames.h"

using namespace mooncake;
using namespace mooncake::tcp;
using mooncake::test::hex;

namespace {

/** What a connection is told to be, when its bytes arrive one by one; `more` to the end is left as it is. */
Opening outcome(const std::vector<u8>& bytes) {
  for (size_t length = 0; length <= bytes.size(); length++) {
    const Opening opening = classify(bytes.data(), length);
    if (opening != Opening::more) return opening;
  }
  return Opening::more;
}

std::vector<u8> request(u64 size, u64 address, bool write, bool status) {
  std::vector<u8> bytes(STOCK_REQUEST_BYTES);
  writeStockRequest(bytes.data(), {size, address, write, status});
  return bytes;
}

std::vector<u8> frame(u8 type, bool typed, const std::string& json) {
  const std::string text = handshakeFrame({type, typed, json});
  return {text.begin(), text.end()};
}

}  // namespace

TEST(tcpStockFrames, examples) {
  CHECK(request(7, 0x700000000000, true, true) == hex("0700000000000000 0000000000700000 81 00000000000000"));
  CHECK(request(7, 0x700000000000, false, true) == hex("0700000000000000 0000000000700000 80 00000000000000"));
  CHECK(request(7, 0x700000000000, false, false)[16] == 0 && request(7, 0x700000000000, true, false)[16] == 1);
  std::vector<u8> status(8);
  writeStockStatus(status.data(), StockStatus::ok);
  CHECK(status == hex("00000000 5654434d"));
  writeStockStatus(status.data(), StockStatus::rejected);
  CHECK(status == hex("01000000 5654434d"));
  StockStatus word;
  CHECK(readStockStatus(status.data(), word) && word == StockStatus::rejected);
  CHECK(!readStockStatus(hex("01000000 5654434e").data(), word));
  CHECK(frame(3, true, "{}\n") == hex("0400000000000000 03 7b7d0a"));
}

TEST(tcpStockFrames, requests) {
  StockRequest out;
  REQUIRE(readStockRequest(hex("0700000000000000 0000000000700000 81 deadbeefdeadbe").data(), out).ok());
  CHECK(out.size == 7 && out.address == 0x700000000000 && out.write && out.status);
  CHECK(readStockRequest(request(0, 0x700000000000, false, true).data(), out).code == Code::protocol);
  CHECK(readStockRequest(request(16, ~u64{0} - 8, false, true).data(), out).code == Code::protocol);
  for (const u8 opcode : {2, 3, 0x40, 0x82, 0xff}) {
    std::vector<u8> bytes = request(8, 4096, false, false);
    bytes[16] = opcode;
    CHECK(readStockRequest(bytes.data(), out).code == Code::protocol);
  }
}

TEST(tcpStockFrames, handshakes) {
  Handshake out;
  const auto read = [&](const std::vector<u8>& bytes) { return readHandshake(bytes.data() + 8, bytes.size() - 8, out); };
  REQUIRE(read(frame(1, true, "{\"a\":1}")).ok());
  CHECK(out.type == 1 && out.typed && out.json == "{\"a\":1}");
  REQUIRE(read(frame(0, false, " {\"a\":1}")).ok());
  CHECK(out.type == 0 && !out.typed && out.json == " {\"a\":1}");
  CHECK(read(frame(1, true, "")).code == Code::protocol);
  CHECK(read(frame(1, true, "[1]")).code == Code::protocol);
  CHECK(read(frame(4, true, "{}")).code == Code::protocol);
}

TEST(tcpStockFrames, toldApart) {
  for (const u64 size : {u64{1}, u64{2}, u64{3}, u64{7}, u64{8}, u64{9}, u64{100}, u64{4096}, u64{1} << 30, u64{1} << 40}) {
    // Low bytes that look like types and braces; what a stock peer leaves in the padding.
    for (const u64 address : {u64{0x700000000000}, u64{0x7f767b0a7d01}, u64{0x7fffffffffff}, u64{0x10000}}) {
      for (const bool write : {false, true}) {
        for (const bool status : {false, true}) {
          std::vector<u8> bytes = request(size, address, write, status);
          for (size_t i = 17; i < 24; i++) bytes[i] = 0x7d;
          CHECK(outcome(bytes) == Opening::data);
        }
      }
    }
  }
  for (const std::string json : {"{}", "{}\n", "{ }", "{\"a\":1}", "{\"name\":\"n\",\"notify_msg\":\"m\"}"}) {
    for (const u8 type : {0, 1, 2, 3}) CHECK(outcome(frame(type, true, json)) == Opening::handshake);
    CHECK(outcome(frame(0, false, json)) == Opening::handshake);
  }
  std::vector<u8> hello(HELLO_BYTES);
  writeHello(hello.data(), {});
  CHECK(outcome(hello) == Opening::own);
  CHECK(outcome(hex("4745 5420 2f20 4854 5450 2f31 2e31 0d0a")) == Opening::unknown);
  CHECK(outcome(hex("0000000000000000 0000000000700000")) == Opening::unknown);
  CHECK(outcome(hex("0000200000000000 037b7d0a41414141")) == Opening::unknown);
  CHECK(outcome(hex("0500000000000000 0300000000000100")) == Opening::unknown);
}
