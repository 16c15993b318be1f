// The stock wire (Mooncake's transfer engine): data requests of 24 bytes and their status words, handshake frames, and by
// which first bytes a connection is told to be one or the other, or one of ours. Pure functions over bytes.
#pragma once

#include "engine/status.h"

namespace mooncake::tcp {

/** u64 size | u64 address in the peer | u8 opcode | 7 bytes of padding, undefined. */
inline constexpr size_t STOCK_REQUEST_BYTES = 24;
inline constexpr size_t STOCK_STATUS_BYTES = 8;

struct StockRequest {
  u64 size = 0;
  u64 address = 0;
  bool write = false;
  /** Version 2: answered by a status word. */
  bool status = false;
};

void writeStockRequest(u8* out, const StockRequest& request);
/** Fails with `protocol`: an unknown opcode, size 0, a range that overflows 64 bits. `request` is filled as far as it was
    understood, so that a version 2 request can be answered. */
Status readStockRequest(const u8* bytes, StockRequest& request);

enum class StockStatus : u8 { ok = 0, rejected = 1 };
void writeStockStatus(u8* out, StockStatus status);
/** False where it is no status word; any status but 0 is a rejection. */
bool readStockStatus(const u8* bytes, StockStatus& status);

/** u64 length | u8 type | JSON, where length counts type and JSON. Old peers leave the type out. */
inline constexpr u64 MAX_HANDSHAKE_BYTES = 1 << 20;

struct Handshake {
  u8 type = 0;
  /** False: an old frame without type, to be answered by one. */
  bool typed = true;
  std::string json;
};

/** `body` is what follows the length. Fails with `protocol` where it is no JSON text by its first byte. */
Status readHandshake(const u8* body, u64 length, Handshake& out);
std::string handshakeFrame(const Handshake& handshake);

/** What a connection speaks. `more`: these bytes do not tell yet. */
enum class Opening : u8 { more, own, handshake, data, unknown };

/** OPENING_BYTES always tell. */
inline constexpr size_t OPENING_BYTES = 16;

/** Told by the first bytes, by these rules in turn:
    1. The magic of our own framing: own.
    2. A first number (size or length) of 0, or of 2^48 or more: unknown.
    3. A number of 8 or more: bytes 14 and 15 are JSON text in a handshake, which has no zero byte, and the top of a
       user-space address in data, which is zero. Both zero: data. Neither, and a length that handshakes may have: handshake.
       One of them: unknown.
    4. A number below 8: a handshake has ended before byte 16. Exactly the frame, and it is an object in braces: handshake.
       When 16 bytes have come: data by rule 3, else unknown. */
Opening classify(const u8* bytes, size_t length);

}  // namespace mooncake::tcp
