// Our own framing of a TCP stream (docs/native.md, "The data wire"): a hello from each side, then frames of a fixed header
// and what follows it. Pure functions over bytes; nothing here knows a socket. All numbers are little-endian.
#pragma once

#include "engine/status.h"

#include <vector>

namespace mooncake::tcp {

/** "MKTSDATA": as a size, which is what stock peers begin with, it would be past every address space. */
inline constexpr u8 MAGIC[8] = {'M', 'K', 'T', 'S', 'D', 'A', 'T', 'A'};
inline constexpr u16 VERSION = 1;

inline constexpr size_t HELLO_BYTES = 40;
inline constexpr size_t FRAME_BYTES = 40;
inline constexpr size_t RECORD_BYTES = 24;
/** Of one request. */
inline constexpr u32 MAX_RECORDS = 8192;
inline constexpr u64 MAX_REQUEST_BYTES = u64{64} << 20;

struct Hello {
  u16 version = VERSION;
  /** The generation that the sender takes the other side to have; 0: any. */
  u64 expected = 0;
  /** The sender's own. */
  u64 generation = 0;
  /** Of a client: which of its streams, 0 none, and how many connections that had before, modulo 2^16. The server ends an
      earlier one of the same stream before it answers. */
  u32 stream = 0;
  u16 connection = 0;
};

void writeHello(u8* out, const Hello& hello);
/** Fails with `protocol` where magic or checksum differ. The version is the caller's to judge. */
Status readHello(const u8* bytes, Hello& hello);

enum class FrameType : u8 {
  read = 1,   // records follow; answered by data and done, or done alone where it is refused
  write = 2,  // records follow, then the data, then end; answered by done
  data = 3,   // the data of a read follows
  end = 4,    // of the data of a write: its checksum; a code other than ok: the writer gave up, the data is worthless
  done = 5,   // the end of a request, with a code; for a read the checksum of its data
  beat = 6,   // nothing but a sign of life
  fence = 7,  // ends the connection `bytes` of the client's stream `id` before anything that follows is served
};

struct Frame {
  FrameType type = FrameType::beat;
  /** Of read and write: the data is to be summed. Of end and done: `sum` is the data's. */
  bool summed = false;
  Code code = Code::ok;
  /** Of the request, given by whoever asks. */
  u32 id = 0;
  u32 records = 0;
  /** Data of the whole request. */
  u64 bytes = 0;
  /** CRC-64 of the records for read and write, of the data for end and done. */
  u64 sum = 0;
};

void writeFrame(u8* out, const Frame& frame);
/** Fails with `protocol`: checksum, type, code, or numbers past the limits above. */
Status readFrame(const u8* bytes, Frame& frame);

/** A range of a segment of whoever is asked. */
struct WireRecord {
  u32 segment = 0;
  u64 offset = 0;
  u64 length = 0;
};

void writeRecord(u8* out, const WireRecord& record);
/** The records of `frame`, RECORD_BYTES each. Fails with `protocol`: checksum, a length of 0, a range that overflows 64 bits,
    lengths that do not add up to the frame's bytes. */
Status readRecords(const u8* bytes, const Frame& frame, std::vector<WireRecord>& out);

}  // namespace mooncake::tcp
