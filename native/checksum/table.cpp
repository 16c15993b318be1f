// Slicing by 16 (Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based CRC Generators",
// 2005): sixteen bytes a step, each looked up in the table of its distance from the end of the step.
#include "checksum/forms.h"
#include "checksum/polynomial.h"

#include <bit>
#include <cstring>
#include <utility>

namespace mooncake::checksum {
namespace {

constexpr SliceTables tables = makeSliceTables();

using Bytes = std::make_integer_sequence<unsigned, 8>;

u64 toBigEndian(u64 v) { return std::endian::native == std::endian::little ? __builtin_bswap64(v) : v; }

/** CRC of the eight bytes of `word` followed by `after` zero bytes. */
template <unsigned after, unsigned... I>
u64 slice8(u64 word, std::integer_sequence<unsigned, I...>) {
  return (tables[after + I][(word >> (8 * I)) & 0xff] ^ ...);
}

template <Sink sink>
u64 run(u8* to, const u8* from, u64 length, u64 crc) {
  Cursor cursor{to, from, length};
  while (cursor.left >= 16) {
    u64 words[2];
    std::memcpy(words, cursor.from, 16);
    if constexpr (sink != Sink::none) std::memcpy(cursor.to, words, 16);
    crc = slice8<8>(toBigEndian(words[0]) ^ crc, Bytes()) ^ slice8<0>(toBigEndian(words[1]), Bytes());
    cursor.advance<sink>(16);
  }
  while (cursor.left > 0) {
    const u8 byte = *cursor.from;
    if constexpr (sink != Sink::none) *cursor.to = byte;
    crc = (crc << 8) ^ tables[0][(crc >> 56) ^ byte];
    cursor.advance<sink>(1);
  }
  return crc;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

}  // namespace

// Streaming would gain nothing: the tables are slower than the memory.
const Form tableForm{"table", sum, run<Sink::cached>, run<Sink::cached>,
                     copyTwice<run<Sink::cached>, sum>};

}  // namespace mooncake::checksum
