// The form for VPCLMULQDQ with AVX-512: eight registers of four lanes, 512 bytes a step.
#if defined(__x86_64__)

#include "checksum/lane.h"

// GCC 12 takes the deliberately undefined operands of its own intrinsics for mistakes (PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define MOONCAKE_WIDE_TARGET __attribute__((target("avx512f,avx512bw,vpclmulqdq,pclmul,ssse3")))
#define MOONCAKE_WIDE __attribute__((target("avx512f,avx512bw,vpclmulqdq,pclmul,ssse3"), always_inline)) inline

namespace mooncake::checksum {
namespace {

constexpr unsigned REGISTERS = 8;
constexpr u64 STEP = 64 * REGISTERS;

using Wide = __m512i;

MOONCAKE_WIDE Wide inEveryLane(FoldKey key) { return _mm512_broadcast_i32x4(keyLane(key)); }

/** Each lane of `v` moved on by the bits of its key, plus `to`. */
MOONCAKE_WIDE Wide foldOnto(Wide v, Wide key, Wide to) {
  constexpr int xorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, key, 0x11),
                                   _mm512_clmulepi64_epi128(v, key, 0x00), to, xorOfThree);
}

template <Sink sink>
MOONCAKE_WIDE Wide takeWide(Cursor& cursor) {
  const Wide bytes = _mm512_loadu_si512(cursor.from);
  if constexpr (sink == Sink::cached) _mm512_storeu_si512(cursor.to, bytes);
  if constexpr (sink == Sink::streaming) _mm512_stream_si512(reinterpret_cast<Wide*>(cursor.to), bytes);
  cursor.advance<sink>(64);
  const Wide reverse = _mm512_broadcast_i32x4(
      _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  return _mm512_shuffle_epi8(bytes, reverse);
}

/** `crc` goes onto the message's first eight bytes. */
MOONCAKE_WIDE Wide addStart(Wide first, u64 crc) {
  return _mm512_xor_si512(first, _mm512_zextsi128_si512(makeLane(crc, 0)));
}

/** The state after all steps of `STEP` bytes; there is at least one. */
template <Sink sink>
MOONCAKE_WIDE Wide foldSteps(Cursor& cursor, u64 crc) {
  Wide wides[REGISTERS];
  MOONCAKE_UNROLL
  for (unsigned i = 0; i < REGISTERS; i++) wides[i] = takeWide<sink>(cursor);
  wides[0] = addStart(wides[0], crc);

  const Wide key = inEveryLane(foldKey(8 * STEP));
  while (cursor.left >= STEP) {
    MOONCAKE_UNROLL
    for (unsigned i = 0; i < REGISTERS; i++) wides[i] = foldOnto(wides[i], key, takeWide<sink>(cursor));
  }
  // Neighbours onto each other, then the pairs, then the fours: the last register holds all.
  const Wide by1 = inEveryLane(foldKey(512));
  const Wide by2 = inEveryLane(foldKey(1024));
  const Wide by4 = inEveryLane(foldKey(2048));
  wides[1] = foldOnto(wides[0], by1, wides[1]);
  wides[3] = foldOnto(wides[2], by1, wides[3]);
  wides[5] = foldOnto(wides[4], by1, wides[5]);
  wides[7] = foldOnto(wides[6], by1, wides[7]);
  wides[3] = foldOnto(wides[1], by2, wides[3]);
  wides[7] = foldOnto(wides[5], by2, wides[7]);
  return foldOnto(wides[3], by4, wides[7]);
}

/** The four lanes of a register onto the last. */
MOONCAKE_WIDE Lane joinLanes(Wide state) {
  constexpr FoldKey by3 = foldKey(384);
  constexpr FoldKey by2 = foldKey(256);
  constexpr FoldKey by1 = foldKey(128);
  const Wide key = _mm512_set_epi64(0, 0, static_cast<long long>(by1.high), static_cast<long long>(by1.low),
                                    static_cast<long long>(by2.high), static_cast<long long>(by2.low),
                                    static_cast<long long>(by3.high), static_cast<long long>(by3.low));
  const Wide moved = foldOnto(state, key, _mm512_maskz_mov_epi64(0xc0, state));
  return add(add(_mm512_extracti32x4_epi32(moved, 0), _mm512_extracti32x4_epi32(moved, 1)),
             add(_mm512_extracti32x4_epi32(moved, 2), _mm512_extracti32x4_epi32(moved, 3)));
}

template <Sink sink>
MOONCAKE_WIDE_TARGET u64 run(u8* to, const u8* from, u64 length, u64 crc) {
  Cursor cursor{to, from, length};
  if constexpr (sink == Sink::streaming) crc = alignDestination(cursor, 64, crc);
  if (cursor.left < 16) return takeShort<sink>(cursor, crc);
  Lane state;
  if (cursor.left >= 64) {
    Wide wide = cursor.left >= STEP ? foldSteps<sink>(cursor, crc) : addStart(takeWide<sink>(cursor), crc);
    const Wide by1 = inEveryLane(foldKey(512));
    while (cursor.left >= 64) wide = foldOnto(wide, by1, takeWide<sink>(cursor));
    state = joinLanes(wide);
  } else {
    state = add(takeLane<sink>(cursor), makeLane(crc, 0));
  }
  const u64 crcOfAll = finish<sink>(state, cursor);
  if constexpr (sink == Sink::streaming) streamFence();
  return crcOfAll;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

}  // namespace

const Form vpclmul512Form{"vpclmul512", sum, run<Sink::cached>, run<Sink::streaming>};

}  // namespace mooncake::checksum

#endif
