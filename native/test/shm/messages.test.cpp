// Packets: what encode makes decodes to the same; anything else is refused.
#include "test/check.h"
#include "transport/shm/messages.h"

#include <cstring>
#include <random>

using namespace mooncake;
using namespace mooncake::shm;

namespace {

Message sample(MessageType type) {
  Message message;
  message.type = type;
  message.code = type == MessageType::refusal ? Code::peer : Code::ok;
  message.token = 0x12345678;
  message.hello.generation = 7;
  message.hello.nonce[15] = 9;
  message.grant = {3, 1, 0x7f0000000000, 4096, 64};
  message.ring = {16, 4096};
  message.work = {5, WORK_WRITE | WORK_SUM};
  message.crc = 0x6c40df5f0b497347;
  if (type == MessageType::refusal) message.text = "not you";
  if (type == MessageType::stage) message.pieces = {{1, 0, 0, 10}, {2, 0, 4096, 1}};
  return message;
}

Status decoded(const std::vector<u8>& packet, Message& out) { return decode(packet.data(), packet.size(), out); }

/** A packet of the sample with `value` at `offset`. */
template <class T>
Code tampered(MessageType type, size_t offset, T value) {
  std::vector<u8> packet = encode(sample(type));
  std::memcpy(packet.data() + offset, &value, sizeof value);
  Message out;
  return decoded(packet, out).code;
}

}  // namespace

TEST(shmMessages, roundTrip) {
  for (u8 type = 1; type <= static_cast<u8>(MessageType::pong); type++) {
    const std::vector<u8> packet = encode(sample(static_cast<MessageType>(type)));
    Message out;
    REQUIRE(decoded(packet, out).ok());
    CHECK(static_cast<u8>(out.type) == type);
    CHECK(out.token == 0x12345678);
    CHECK(encode(out) == packet);
    // Every other length of the same bytes is a lie.
    for (size_t length = 0; length < packet.size(); length++) CHECK(decode(packet.data(), length, out).code == Code::protocol);
    std::vector<u8> longer = packet;
    longer.push_back(0);
    CHECK(decoded(longer, out).code == Code::protocol);
  }
}

TEST(shmMessages, lies) {
  constexpr size_t pieces = sizeof(Header) + sizeof(WorkBody);
  CHECK(tampered(MessageType::ping, 0, u8{0}) == Code::protocol);
  CHECK(tampered(MessageType::ping, 0, u8{12}) == Code::protocol);
  CHECK(tampered(MessageType::ping, 1, u8{13}) == Code::protocol);
  CHECK(tampered(MessageType::ping, 2, u16{1}) == Code::protocol);
  CHECK(tampered(MessageType::stage, 2, u16{1}) == Code::protocol);
  CHECK(tampered(MessageType::stage, 2, u16{0}) == Code::protocol);
  CHECK(tampered(MessageType::stage, 2, u16{0xffff}) == Code::protocol);
  CHECK(tampered(MessageType::refusal, 2, u16{600}) == Code::protocol);
  CHECK(tampered(MessageType::stage, pieces + offsetof(WirePiece, length), u64{0}) == Code::protocol);
  CHECK(tampered(MessageType::stage, pieces + offsetof(WirePiece, offset), ~u64{0}) == Code::protocol);
  CHECK(tampered(MessageType::grant, sizeof(Header) + offsetof(GrantBody, length), u64{0}) == Code::protocol);
  CHECK(tampered(MessageType::grant, sizeof(Header) + offsetof(GrantBody, address), ~u64{0}) == Code::protocol);
  CHECK(tampered(MessageType::grant, sizeof(Header) + offsetof(GrantBody, fdOffset), ~u64{0}) == Code::protocol);
  CHECK(tampered(MessageType::stage, pieces + offsetof(WirePiece, offset), u64{1} << 40) == Code::ok);
}

TEST(shmMessages, randomBytes) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200000; round++) {
    std::vector<u8> packet(random() % 120);
    for (u8& byte : packet) byte = static_cast<u8>(random());
    if (packet.size() > 3) {
      packet[0] = static_cast<u8>(random() % 14);
      packet[1] = 0;
      packet[2] = static_cast<u8>(random() % 4);
      packet[3] = 0;
    }
    Message out;
    if (decoded(packet, out).ok()) CHECK(encode(out) == packet);
  }
}
