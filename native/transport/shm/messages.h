// What two processes of one host say to each other over the Unix socket. A message is a packet (SOCK_SEQPACKET keeps its
// bounds and the descriptor that came with it): a header, a body whose size its type fixes, and for some a list of pieces.
// The owner of memory is the side that listens; the grantee is the side that opened the link and moves the bytes.
//
//   hello         both      versions, generations; the owner names an address with a nonce, by which process_vm is probed
//   refusal       owner     why there will be no link, as text; the socket is closed after it
//   grantRequest  grantee   "segment S under the number N"
//   grant         owner     where it lies; a memfd comes with it where it can be mapped; or why not
//   revoke        owner     no more slices on grant N: its segment is being taken away
//   released      grantee   no slice of ours touches grant N any more
//   ring          grantee   a memfd through which bytes are staged
//   stage         grantee   copy these pieces into a slot of the ring, or out of it
//   done          owner     a stage is over: the CRC of what was copied, where it is wanted
//   ping, pong    both      somebody waits for the other
#pragma once

#include "engine/status.h"

#include <cstddef>
#include <string_view>
#include <vector>

namespace mooncake::shm {

constexpr u32 PROTOCOL_VERSION = 1;
/** Pieces of one stage, at most: as many as process_vm_readv takes. */
constexpr u32 MAX_PIECES = 1024;
constexpr u32 MAX_REFUSAL_BYTES = 512;

enum class MessageType : u8 {
  hello = 1,
  refusal,
  grantRequest,
  grant,
  revoke,
  released,
  ring,
  stage,
  done,
  ping,
  pong,
};

struct Header {
  u8 type = 0;
  /** A Code. */
  u8 code = 0;
  u16 count = 0;
  /** A grant's number, or the number of a stage. */
  u32 token = 0;
};
static_assert(sizeof(Header) == 8);

struct HelloBody {
  u32 version = PROTOCOL_VERSION;
  u32 reserved = 0;
  /** Of the side that speaks, and of the one it believes to speak to (0: any). */
  u64 generation = 0;
  u64 expected = 0;
  /** 16 bytes of nonce and 8 that may be written, in the owner's memory; 0 from the grantee. */
  u64 probeAddress = 0;
  u8 nonce[16] = {};
};
static_assert(sizeof(HelloBody) == 48);

struct GrantBody {
  u32 segment = 0;
  u32 writable = 0;
  u64 address = 0;
  u64 length = 0;
  /** In the descriptor that came along, if one did. */
  u64 fdOffset = 0;
};
static_assert(sizeof(GrantBody) == 32);

struct RingBody {
  u32 slots = 0;
  u32 slotBytes = 0;
};

/** Of a stage. */
struct WorkBody {
  u32 slot = 0;
  u32 flags = 0;
};
/** From the ring into the pieces; without it, from the pieces into the ring. */
constexpr u32 WORK_WRITE = 1;
/** The CRC is wanted. */
constexpr u32 WORK_SUM = 2;
/** The batch is larger than the caches: what is written is not kept in them. */
constexpr u32 WORK_STREAM = 4;

struct WirePiece {
  u32 segment = 0;
  u32 reserved = 0;
  u64 offset = 0;
  u64 length = 0;
};
static_assert(sizeof(WirePiece) == 24);

constexpr size_t MAX_MESSAGE_BYTES = sizeof(Header) + sizeof(WorkBody) + MAX_PIECES * sizeof(WirePiece);

/** One message; of the bodies, the one of its type counts. */
struct Message {
  MessageType type = MessageType::ping;
  Code code = Code::ok;
  u32 token = 0;
  HelloBody hello;
  GrantBody grant;
  RingBody ring;
  WorkBody work;
  u64 crc = 0;
  std::string text;
  std::vector<WirePiece> pieces;
};

/** The packet of a message. */
std::vector<u8> encode(const Message& message);

/** `protocol` for anything that encode does not make: unknown types and codes, lying lengths, ranges that overflow. */
Status decode(const u8* data, size_t length, Message& out);

}  // namespace mooncake::shm
