#include "transport/tcp/stock.h"

#include "transport/tcp/bytes.h"
#include "transport/tcp/frames.h"

namespace mooncake::tcp {

namespace {

constexpr u8 WRITE = 1;
constexpr u8 WITH_STATUS = 0x80;
/** "MCTV" in the upper half of a status word. */
constexpr u64 STATUS_MAGIC = u64{0x4D435456} << 32;

/** Highest type of handshake that stock peers have. */
constexpr u8 LAST_TYPE = 3;

bool isSpace(u8 byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

/** "{…}" with white space around it at most: what a frame of a few bytes may be. */
bool isObject(const u8* text, size_t length) {
  while (length > 0 && isSpace(text[length - 1])) length--;
  return length >= 2 && text[0] == '{' && text[length - 1] == '}';
}

}  // namespace

void writeStockRequest(u8* out, const StockRequest& request) {
  std::memset(out, 0, STOCK_REQUEST_BYTES);
  put<u64>(out, request.size);
  put<u64>(out + 8, request.address);
  out[16] = (request.write ? WRITE : 0) | (request.status ? WITH_STATUS : 0);
}

Status readStockRequest(const u8* bytes, StockRequest& request) {
  request.size = get<u64>(bytes);
  request.address = get<u64>(bytes + 8);
  request.write = (bytes[16] & WRITE) != 0;
  request.status = (bytes[16] & WITH_STATUS) != 0;
  if ((bytes[16] & ~(WRITE | WITH_STATUS)) != 0) return {Code::protocol, "opcode " + std::to_string(bytes[16])};
  if (request.size == 0 || request.address + request.size < request.address) {
    return {Code::protocol, std::to_string(request.size) + " bytes at " + std::to_string(request.address)};
  }
  return {};
}

void writeStockStatus(u8* out, StockStatus status) { put<u64>(out, STATUS_MAGIC | static_cast<u8>(status)); }

bool readStockStatus(const u8* bytes, StockStatus& status) {
  const u64 word = get<u64>(bytes);
  if ((word & ~u64{0xFFFFFFFF}) != STATUS_MAGIC) return false;
  status = word == STATUS_MAGIC ? StockStatus::ok : StockStatus::rejected;
  return true;
}

Status readHandshake(const u8* body, u64 length, Handshake& out) {
  out.typed = length > 0 && body[0] <= LAST_TYPE;
  out.type = out.typed ? body[0] : 0;
  const u64 from = out.typed ? 1 : 0;
  u64 text = from;
  while (text < length && isSpace(body[text])) text++;
  if (text == length || body[text] != '{') return {Code::protocol, "a handshake that is no JSON object"};
  out.json.assign(reinterpret_cast<const char*>(body) + from, length - from);
  return {};
}

std::string handshakeFrame(const Handshake& handshake) {
  std::string frame(8, '\0');
  put<u64>(reinterpret_cast<u8*>(frame.data()), handshake.json.size() + (handshake.typed ? 1 : 0));
  if (handshake.typed) frame += static_cast<char>(handshake.type);
  return frame += handshake.json;
}

Opening classify(const u8* bytes, size_t length) {
  if (length < 8) return Opening::more;
  if (std::memcmp(bytes, MAGIC, sizeof MAGIC) == 0) return Opening::own;
  const u64 number = get<u64>(bytes);
  if (number == 0 || number >= u64{1} << 48) return Opening::unknown;
  if (length < OPENING_BYTES) {
    if (number >= 8 || length != 8 + number) return Opening::more;
    const size_t typed = bytes[8] <= LAST_TYPE ? 1 : 0;
    return isObject(bytes + 8 + typed, number - typed) ? Opening::handshake : Opening::more;
  }
  if (bytes[14] == 0 && bytes[15] == 0) return Opening::data;
  const bool text = bytes[14] != 0 && bytes[15] != 0;
  return text && number >= 8 && number <= MAX_HANDSHAKE_BYTES ? Opening::handshake : Opening::unknown;
}

}  // namespace mooncake::tcp
