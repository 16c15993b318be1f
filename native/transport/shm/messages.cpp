#include "transport/shm/messages.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace mooncake::shm {

namespace {

/** Bytes of the fixed body. */
size_t bodyBytes(MessageType type) {
  switch (type) {
    case MessageType::hello: return sizeof(HelloBody);
    case MessageType::grantRequest:
    case MessageType::grant: return sizeof(GrantBody);
    case MessageType::ring: return sizeof(RingBody);
    case MessageType::stage: return sizeof(WorkBody);
    case MessageType::done: return sizeof(u64);
    case MessageType::refusal:
    case MessageType::revoke:
    case MessageType::released:
    case MessageType::ping:
    case MessageType::pong: return 0;
  }
  return 0;
}

bool hasPieces(MessageType type) { return type == MessageType::stage; }

/** The fixed body in `message`; null where the type has none. */
template <class M>
auto* bodyOf(M& message) {
  using Byte = std::conditional_t<std::is_const_v<M>, const u8, u8>;
  const auto bytes = [](auto& body) { return reinterpret_cast<Byte*>(&body); };
  switch (message.type) {
    case MessageType::hello: return bytes(message.hello);
    case MessageType::grantRequest:
    case MessageType::grant: return bytes(message.grant);
    case MessageType::ring: return bytes(message.ring);
    case MessageType::stage: return bytes(message.work);
    case MessageType::done: return bytes(message.crc);
    case MessageType::refusal:
    case MessageType::revoke:
    case MessageType::released:
    case MessageType::ping:
    case MessageType::pong: break;
  }
  return static_cast<Byte*>(nullptr);
}

Status bad(const std::string& what) { return {Code::protocol, "shared memory: " + what}; }

}  // namespace

std::vector<u8> encode(const Message& message) {
  const bool refusal = message.type == MessageType::refusal;
  const size_t body = bodyBytes(message.type);
  const size_t tail = refusal ? std::min<size_t>(message.text.size(), MAX_REFUSAL_BYTES)
                              : message.pieces.size() * sizeof(WirePiece);
  Header header;
  header.type = static_cast<u8>(message.type);
  header.code = static_cast<u8>(message.code);
  header.count = static_cast<u16>(refusal ? tail : message.pieces.size());
  header.token = message.token;
  std::vector<u8> packet(sizeof header + body + tail);
  std::memcpy(packet.data(), &header, sizeof header);
  if (body > 0) std::memcpy(packet.data() + sizeof header, bodyOf(message), body);
  if (tail > 0) {
    const void* const from =
        refusal ? static_cast<const void*>(message.text.data()) : static_cast<const void*>(message.pieces.data());
    std::memcpy(packet.data() + sizeof header + body, from, tail);
  }
  return packet;
}

Status decode(const u8* data, size_t length, Message& out) {
  Header header;
  if (length < sizeof header) return bad("a message of " + std::to_string(length) + " bytes");
  std::memcpy(&header, data, sizeof header);
  if (header.type < static_cast<u8>(MessageType::hello) || header.type > static_cast<u8>(MessageType::pong)) {
    return bad("message type " + std::to_string(header.type));
  }
  if (header.code > static_cast<u8>(Code::system)) return bad("code " + std::to_string(header.code));
  out = {};
  out.type = static_cast<MessageType>(header.type);
  out.code = static_cast<Code>(header.code);
  out.token = header.token;
  const size_t body = bodyBytes(out.type);
  const bool refusal = out.type == MessageType::refusal;
  if (header.count > (refusal ? MAX_REFUSAL_BYTES : hasPieces(out.type) ? MAX_PIECES : 0)) {
    return bad("count " + std::to_string(header.count) + " in a message of type " + std::to_string(header.type));
  }
  const size_t tail = header.count * (refusal ? size_t{1} : sizeof(WirePiece));
  if (length != sizeof header + body + tail) {
    return bad("a message of type " + std::to_string(header.type) + " with " + std::to_string(length) + " bytes");
  }
  const u8* const at = data + sizeof header;
  if (body > 0) std::memcpy(bodyOf(out), at, body);
  if (refusal) {
    out.text.assign(reinterpret_cast<const char*>(at), tail);
  } else if (tail > 0) {
    out.pieces.resize(header.count);
    std::memcpy(out.pieces.data(), at + body, tail);
  }
  if (hasPieces(out.type) && out.pieces.empty()) return bad("a request without pieces");
  for (const WirePiece& piece : out.pieces) {
    if (piece.length == 0 || piece.offset + piece.length < piece.offset) {
      return bad("a piece of " + std::to_string(piece.length) + " bytes at " + std::to_string(piece.offset));
    }
  }
  if (out.type == MessageType::grant && out.code == Code::ok &&
      (out.grant.length == 0 || out.grant.address + out.grant.length < out.grant.address ||
       out.grant.fdOffset + out.grant.length < out.grant.fdOffset)) {
    return bad("a grant of " + std::to_string(out.grant.length) + " bytes");
  }
  return {};
}

}  // namespace mooncake::shm
