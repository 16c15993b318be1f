#include "transport/tcp/frames.h"

#include "checksum/crc64.h"
#include "transport/tcp/bytes.h"

namespace mooncake::tcp {

namespace {

Status wrong(std::string what) { return {Code::protocol, std::move(what)}; }

constexpr u8 SUMMED = 1;

}  // namespace

void writeHello(u8* out, const Hello& hello) {
  std::memcpy(out, MAGIC, sizeof MAGIC);
  put<u16>(out + 8, hello.version);
  put<u16>(out + 10, hello.connection);
  put<u32>(out + 12, hello.stream);
  put<u64>(out + 16, hello.expected);
  put<u64>(out + 24, hello.generation);
  put<u64>(out + 32, crc64(out, 32, 0));
}

Status readHello(const u8* bytes, Hello& hello) {
  if (std::memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return wrong("a hello without its magic");
  if (crc64(bytes, 32, 0) != get<u64>(bytes + 32)) return wrong("a hello whose checksum differs");
  hello.version = get<u16>(bytes + 8);
  hello.connection = get<u16>(bytes + 10);
  hello.stream = get<u32>(bytes + 12);
  hello.expected = get<u64>(bytes + 16);
  hello.generation = get<u64>(bytes + 24);
  return {};
}

void writeFrame(u8* out, const Frame& frame) {
  std::memset(out, 0, FRAME_BYTES);
  out[0] = static_cast<u8>(frame.type);
  out[1] = frame.summed ? SUMMED : 0;
  out[2] = static_cast<u8>(frame.code);
  put<u32>(out + 4, frame.id);
  put<u32>(out + 8, frame.records);
  put<u64>(out + 16, frame.bytes);
  put<u64>(out + 24, frame.sum);
  put<u64>(out + 32, crc64(out, 32, 0));
}

Status readFrame(const u8* bytes, Frame& frame) {
  if (crc64(bytes, 32, 0) != get<u64>(bytes + 32)) return wrong("a frame whose header's checksum differs");
  if (bytes[0] < static_cast<u8>(FrameType::read) || bytes[0] > static_cast<u8>(FrameType::fence)) {
    return wrong("a frame of type " + std::to_string(bytes[0]));
  }
  if (bytes[1] > SUMMED) return wrong("a frame with flags " + std::to_string(bytes[1]));
  if (bytes[2] > static_cast<u8>(Code::system)) return wrong("a frame with code " + std::to_string(bytes[2]));
  frame.type = static_cast<FrameType>(bytes[0]);
  frame.summed = bytes[1] == SUMMED;
  frame.code = static_cast<Code>(bytes[2]);
  frame.id = get<u32>(bytes + 4);
  frame.records = get<u32>(bytes + 8);
  frame.bytes = get<u64>(bytes + 16);
  frame.sum = get<u64>(bytes + 24);
  const bool request = frame.type == FrameType::read || frame.type == FrameType::write;
  if (request ? frame.records == 0 || frame.records > MAX_RECORDS : frame.records != 0) {
    return wrong("a frame of type " + std::to_string(bytes[0]) + " with " + std::to_string(frame.records) + " records");
  }
  if (frame.bytes > MAX_REQUEST_BYTES || (request && frame.bytes == 0)) {
    return wrong("a request of " + std::to_string(frame.bytes) + " bytes");
  }
  return {};
}

void writeRecord(u8* out, const WireRecord& record) {
  put<u64>(out, record.segment);
  put<u64>(out + 8, record.offset);
  put<u64>(out + 16, record.length);
}

Status readRecords(const u8* bytes, const Frame& frame, std::vector<WireRecord>& out) {
  out.clear();
  if (crc64(bytes, u64{frame.records} * RECORD_BYTES, 0) != frame.sum) return wrong("records whose checksum differs");
  out.reserve(frame.records);
  u64 left = frame.bytes;
  for (u32 i = 0; i < frame.records; i++, bytes += RECORD_BYTES) {
    const WireRecord record{get<u32>(bytes), get<u64>(bytes + 8), get<u64>(bytes + 16)};
    if (record.length == 0 || record.length > left || record.offset + record.length < record.offset) {
      return wrong("record " + std::to_string(i) + " of " + std::to_string(record.length) + " bytes at " +
                   std::to_string(record.offset) + ", where " + std::to_string(left) + " are left");
    }
    left -= record.length;
    out.push_back(record);
  }
  if (left != 0) return wrong("records that are " + std::to_string(left) + " bytes short of their request");
  return {};
}

}  // namespace mooncake::tcp
