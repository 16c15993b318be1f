// The bytes of our own framing.
#include "transport/tcp/frames.h"

#include "checksum/crc64.h"
#include "test/tcp/support.h"

using namespace mooncake;
using namespace mooncake::tcp;
using mooncake::test::hex;

TEST(tcpFrames, bytesOfAFrame) {
  u8 bytes[FRAME_BYTES];
  writeFrame(bytes, {FrameType::read, true, Code::ok, 0x01020304, 2, 0x1000, 0x1122334455667788});
  // The last eight are the CRC-64 of the others, computed bit by bit elsewhere.
  const std::vector<u8> expected =
      hex("01 01 00 00 04030201 02000000 00000000 0010000000000000 8877665544332211 ada2faf85e98da3e");
  CHECK(std::equal(expected.begin(), expected.end(), bytes));
  Frame frame;
  REQUIRE(readFrame(bytes, frame).ok());
  CHECK(frame.type == FrameType::read && frame.summed && frame.code == Code::ok && frame.id == 0x01020304);
  CHECK(frame.records == 2 && frame.bytes == 0x1000 && frame.sum == 0x1122334455667788);
}

TEST(tcpFrames, everyFlippedBitIsFound) {
  u8 bytes[FRAME_BYTES];
  Frame frame;
  writeFrame(bytes, {FrameType::write, false, Code::ok, 7, 1, 64, 9});
  for (size_t bit = 0; bit < FRAME_BYTES * 8; bit++) {
    bytes[bit / 8] ^= static_cast<u8>(1 << bit % 8);
    CHECK(readFrame(bytes, frame).code == Code::protocol);
    bytes[bit / 8] ^= static_cast<u8>(1 << bit % 8);
  }
  writeHello(bytes, {VERSION, 5, 6, 7, 8});
  Hello hello;
  REQUIRE(readHello(bytes, hello).ok());
  CHECK(hello.version == VERSION && hello.expected == 5 && hello.generation == 6);
  CHECK(hello.stream == 7 && hello.connection == 8);
  for (size_t bit = 0; bit < HELLO_BYTES * 8; bit++) {
    bytes[bit / 8] ^= static_cast<u8>(1 << bit % 8);
    CHECK(readHello(bytes, hello).code == Code::protocol);
    bytes[bit / 8] ^= static_cast<u8>(1 << bit % 8);
  }
}

TEST(tcpFrames, lyingNumbersAreRefused) {
  u8 bytes[FRAME_BYTES];
  Frame out;
  const auto refused = [&](const Frame& frame) {
    writeFrame(bytes, frame);
    return readFrame(bytes, out).code == Code::protocol;
  };
  CHECK(refused({FrameType::read, false, Code::ok, 1, 0, 64}));
  CHECK(refused({FrameType::read, false, Code::ok, 1, MAX_RECORDS + 1, 64}));
  CHECK(refused({FrameType::write, false, Code::ok, 1, 1, 0}));
  CHECK(refused({FrameType::write, false, Code::ok, 1, 1, MAX_REQUEST_BYTES + 1}));
  CHECK(refused({FrameType::done, false, Code::ok, 1, 1, 0}));
  CHECK(refused({static_cast<FrameType>(0), false, Code::ok, 1}));
  CHECK(refused({static_cast<FrameType>(8), false, Code::ok, 1}));
  CHECK(refused({FrameType::done, false, static_cast<Code>(200), 1}));
  CHECK(!refused({FrameType::read, false, Code::ok, 1, MAX_RECORDS, MAX_REQUEST_BYTES}));
}

TEST(tcpFrames, recordsMustAddUp) {
  const auto outcome = [](std::vector<WireRecord> records, u64 bytes) {
    std::vector<u8> wire(records.size() * RECORD_BYTES);
    for (size_t i = 0; i < records.size(); i++) writeRecord(wire.data() + i * RECORD_BYTES, records[i]);
    Frame frame{FrameType::read, false, Code::ok, 1, static_cast<u32>(records.size()), bytes};
    frame.sum = mooncake::crc64(wire.data(), wire.size(), 0);
    std::vector<WireRecord> out;
    return readRecords(wire.data(), frame, out).code;
  };
  CHECK(outcome({{1, 0, 10}, {2, 5, 20}}, 30) == Code::ok);
  CHECK(outcome({{1, 0, 10}, {2, 5, 20}}, 31) == Code::protocol);
  CHECK(outcome({{1, 0, 10}, {2, 5, 20}}, 29) == Code::protocol);
  CHECK(outcome({{1, 0, 0}, {2, 5, 30}}, 30) == Code::protocol);
  CHECK(outcome({{1, ~u64{0} - 4, 10}}, 10) == Code::protocol);
  CHECK(outcome({{1, 0, ~u64{0}}, {1, 0, 31}}, 30) == Code::protocol);
}
