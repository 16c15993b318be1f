// The form for VPCLMULQDQ with AVX2 (processors whose AVX-512 is missing or switched off): eight registers of two lanes,
// 256 bytes a step.
#if defined(__x86_64__)

#include "checksum/lane.h"

#define MOONCAKE_WIDE_TARGET __attribute__((target("avx2,vpclmulqdq,pclmul,ssse3")))
#define MOONCAKE_WIDE __attribute__((target("avx2,vpclmulqdq,pclmul,ssse3"), always_inline)) inline

namespace mooncake::checksum {
namespace {

constexpr u64 STEP = 32 * SIDE_BY_SIDE;

using Wide = __m256i;

MOONCAKE_WIDE Wide inEveryLane(FoldKey key) { return _mm256_broadcastsi128_si256(keyLane(key)); }

/** Each lane of `v` moved on by the bits of its key, plus `to`. */
MOONCAKE_WIDE Wide foldOnto(Wide v, Wide key, Wide to) {
  const Wide moved =
      _mm256_xor_si256(_mm256_clmulepi64_epi128(v, key, 0x11), _mm256_clmulepi64_epi128(v, key, 0x00));
  return _mm256_xor_si256(moved, to);
}

/** The 32 bytes at `offset` from the cursor, copied on the way. */
template <Sink sink>
MOONCAKE_WIDE Wide takeWide(const Cursor& cursor, u64 offset) {
  const Wide bytes = _mm256_loadu_si256(reinterpret_cast<const Wide*>(cursor.from + offset));
  if constexpr (sink != Sink::none) {
    auto* to = reinterpret_cast<Wide*>(cursor.to + offset);
    if constexpr (sink == Sink::cached) _mm256_storeu_si256(to, bytes);
    if constexpr (sink == Sink::streaming) _mm256_stream_si256(to, bytes);
  }
  const Wide reverse = _mm256_broadcastsi128_si256(
      _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  return _mm256_shuffle_epi8(bytes, reverse);
}

/** The state after all steps of `STEP` bytes; there is at least one. */
template <Sink sink, unsigned... I>
MOONCAKE_WIDE Lane foldSteps(Cursor& cursor, u64 crc, std::integer_sequence<unsigned, I...>) {
  Wide wides[SIDE_BY_SIDE] = {takeWide<sink>(cursor, 32 * I)...};
  wides[0] = _mm256_xor_si256(wides[0], _mm256_zextsi128_si256(makeLane(crc, 0)));
  cursor.advance<sink>(STEP);

  const Wide key = inEveryLane(foldKey(8 * STEP));
  for (; cursor.left >= STEP; cursor.advance<sink>(STEP)) {
    for (u64 line = 0; line < STEP; line += 64) prefetchLine<sink>(cursor, line);
    ((wides[I] = foldOnto(wides[I], key, takeWide<sink>(cursor, 32 * I))), ...);
  }
  // Neighbours onto each other, then the pairs, then the fours: the last register holds all.
  const Wide by1 = inEveryLane(foldKey(256));
  const Wide by2 = inEveryLane(foldKey(512));
  const Wide by4 = inEveryLane(foldKey(1024));
  wides[1] = foldOnto(wides[0], by1, wides[1]);
  wides[3] = foldOnto(wides[2], by1, wides[3]);
  wides[5] = foldOnto(wides[4], by1, wides[5]);
  wides[7] = foldOnto(wides[6], by1, wides[7]);
  wides[3] = foldOnto(wides[1], by2, wides[3]);
  wides[7] = foldOnto(wides[5], by2, wides[7]);
  const Wide last = foldOnto(wides[3], by4, wides[7]);
  return add(fold(_mm256_castsi256_si128(last), keyLane(foldKey(128))), _mm256_extracti128_si256(last, 1));
}

template <Sink sink>
MOONCAKE_WIDE_TARGET u64 run(u8* to, const u8* from, u64 length, u64 crc) {
  Cursor cursor{to, from, length};
  if constexpr (sink == Sink::streaming) crc = alignDestination(cursor, 64, crc);
  if (cursor.left < 16) return takeShort<sink>(cursor, crc);
  const Lane state =
      cursor.left >= STEP ? foldSteps<sink>(cursor, crc, Registers()) : takeStart<sink>(cursor, crc);
  const u64 crcOfAll = finish<sink>(state, cursor);
  if constexpr (sink == Sink::streaming) streamFence();
  return crcOfAll;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

}  // namespace

const Form vpclmul256Form{"vpclmul256", sum, run<Sink::cached>, run<Sink::streaming>,
                          copyTwice<run<Sink::streaming>, sum>};

}  // namespace mooncake::checksum

#endif
