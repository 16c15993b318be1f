// Our own framing. A checksum stands before everything else, so that the fuzzer's bytes are given right ones first: what is
// tested is what lies behind it.
#include "checksum/crc64.h"
#include "transport/tcp/bytes.h"
#include "transport/tcp/frames.h"

#include <cstdlib>

using namespace mooncake;
using namespace mooncake::tcp;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  if (size < FRAME_BYTES) return 0;
  Hello hello;
  (void)readHello(data, hello);
  Frame frame;
  (void)readFrame(data, frame);

  std::vector<u8> bytes(data, data + size);
  const u64 recordBytes = (size - FRAME_BYTES) / RECORD_BYTES * RECORD_BYTES;
  put<u64>(bytes.data() + 24, crc64(bytes.data() + FRAME_BYTES, recordBytes, 0));
  put<u64>(bytes.data() + 32, crc64(bytes.data(), 32, 0));
  if (!readFrame(bytes.data(), frame).ok()) return 0;
  require(frame.records <= MAX_RECORDS && frame.bytes <= MAX_REQUEST_BYTES);
  if (frame.records == 0 || frame.records * RECORD_BYTES > recordBytes) return 0;
  std::vector<WireRecord> records;
  if (!readRecords(bytes.data() + FRAME_BYTES, frame, records).ok()) return 0;
  u64 total = 0;
  for (const WireRecord& record : records) {
    require(record.length > 0 && record.offset + record.length > record.offset);
    total += record.length;
  }
  require(records.size() == frame.records && total == frame.bytes);
  return 0;
}
