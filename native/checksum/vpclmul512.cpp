// The form for VPCLMULQDQ with AVX-512 and GFNI: eight registers of four lanes, 512 bytes a step. It takes two registers
// from each of four pages: the processor reads ahead within a page, so that four are read ahead at once. From memory that
// makes a copy a tenth faster, in the caches it makes no difference.
//
// Lanes are mirrored here: bit i has the coefficient of x^(127 - i). The bytes of a message already stand in that order, and only
// the bits within each are turned, by GFNI. Reversing the bytes in place of that takes a shuffle, which runs on the port of
// the multiplications, the one that a sum is bound by: 64 bytes take two of its cycles in place of three. A product of mirrored
// words is the mirrored product times x, so keys are one power less.
#if defined(__x86_64__)

#include "checksum/lane.h"

// GCC 12 takes the deliberately undefined operands of its own intrinsics for mistakes (PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define MOONCAKE_WIDE_TARGET __attribute__((target("avx512f,avx512bw,gfni,vpclmulqdq,pclmul,ssse3")))
#define MOONCAKE_WIDE __attribute__((target("avx512f,avx512bw,gfni,vpclmulqdq,pclmul,ssse3"), always_inline)) inline

namespace mooncake::checksum {
namespace {

constexpr u64 STEP = 64 * SIDE_BY_SIDE;
constexpr u64 PAGE = 4096;
constexpr u64 PAGES = 4 * PAGE;
/** How far ahead lines of the four pages are asked for: the processor reads ahead to the end of a page and no further, and not
    at all what is overwritten. Measured from memory, 256 to 2,048 alike: a sixth more of a sum, a twentieth of a streaming copy,
    a third of one that stores to the caches. */
constexpr u64 AHEAD = 1024;

using Wide = __m512i;

MOONCAKE_WIDE Wide inEveryLane(FoldKey key) { return _mm512_broadcast_i32x4(keyLane(key)); }

/** Each byte with its bits turned round: the matrix that maps bit i to bit 7 - i. */
MOONCAKE_WIDE Wide turnBits(Wide v) {
  return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(static_cast<long long>(0x8040201008040201)), 0);
}

/** Each lane of `v` moved on by the bits of its key, plus `to`. */
MOONCAKE_WIDE Wide foldOnto(Wide v, Wide key, Wide to) {
  constexpr int xorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, key, 0x11),
                                   _mm512_clmulepi64_epi128(v, key, 0x00), to, xorOfThree);
}

/** The 64 bytes at `offset` from the cursor, copied on the way. */
template <Sink sink>
MOONCAKE_WIDE Wide takeWide(const Cursor& cursor, u64 offset) {
  const Wide bytes = _mm512_loadu_si512(cursor.from + offset);
  if constexpr (sink == Sink::cached) _mm512_storeu_si512(cursor.to + offset, bytes);
  if constexpr (sink == Sink::streaming) {
    _mm512_stream_si512(reinterpret_cast<Wide*>(cursor.to + offset), bytes);
  }
  return turnBits(bytes);
}

/** Asks for the line at `offset` that the fold will want: of a copy to the caches, the one that is overwritten. A streaming copy
    leaves the first-level cache to its stores. */
template <Sink sink>
MOONCAKE_WIDE void askFor(const Cursor& cursor, u64 offset) {
  if constexpr (sink == Sink::none) __builtin_prefetch(cursor.from + offset, 0, 3);
  if constexpr (sink == Sink::streaming) __builtin_prefetch(cursor.from + offset, 0, 2);
  if constexpr (sink == Sink::cached) __builtin_prefetch(cursor.to + offset, 1, 3);
}

/** `crc` goes onto the message's first eight bytes. */
MOONCAKE_WIDE Wide addStart(Wide first, u64 crc) {
  return _mm512_xor_si512(first, turnBits(_mm512_zextsi128_si512(reverseBytes(makeLane(crc, 0)))));
}

/** All registers onto the last: neighbours, which are `by1` bits apart, then the pairs, then the fours. */
MOONCAKE_WIDE Wide join(Wide (&wides)[SIDE_BY_SIDE], FoldKey by1, FoldKey by2, FoldKey by4) {
  wides[1] = foldOnto(wides[0], inEveryLane(by1), wides[1]);
  wides[3] = foldOnto(wides[2], inEveryLane(by1), wides[3]);
  wides[5] = foldOnto(wides[4], inEveryLane(by1), wides[5]);
  wides[7] = foldOnto(wides[6], inEveryLane(by1), wides[7]);
  wides[3] = foldOnto(wides[1], inEveryLane(by2), wides[3]);
  wides[7] = foldOnto(wides[5], inEveryLane(by2), wides[7]);
  return foldOnto(wides[3], inEveryLane(by4), wides[7]);
}

/** The state after all steps of `STEP` bytes; there is at least one. */
template <Sink sink, unsigned... I>
MOONCAKE_WIDE Wide foldSteps(Cursor& cursor, u64 crc, std::integer_sequence<unsigned, I...>) {
  Wide wides[SIDE_BY_SIDE] = {takeWide<sink>(cursor, 64 * I)...};
  wides[0] = addStart(wides[0], crc);
  cursor.advance<sink>(STEP);

  const Wide key = inEveryLane(mirroredKey(8 * STEP));
  for (; cursor.left >= STEP; cursor.advance<sink>(STEP)) {
    (prefetchLine<sink>(cursor, 64 * I), ...);
    ((wides[I] = foldOnto(wides[I], key, takeWide<sink>(cursor, 64 * I))), ...);
  }
  return join(wides, mirroredKey(512), mirroredKey(1024), mirroredKey(2048));
}

/** Where register `index` reads in four pages: 2p and 2p + 1 are those of page p. */
constexpr u64 placeOf(unsigned index) { return PAGE * (index / 2) + 64 * (index % 2); }

/** What the registers take of four pages in one step, and how far they then go on: within the pages, and from their last step
    to the first of the four that follow. */
constexpr u64 PAGES_STEP = STEP / 4;
constexpr FoldKey withinPages = mirroredKey(8 * PAGES_STEP);
constexpr FoldKey acrossPages = mirroredKey(8 * (PAGES - PAGE + PAGES_STEP));

/** The step at `at` of the four pages at the cursor. */
template <Sink sink, unsigned... I>
MOONCAKE_WIDE void foldPagesStep(Wide (&wides)[SIDE_BY_SIDE], Wide key, const Cursor& cursor, u64 at,
                                 std::integer_sequence<unsigned, I...>) {
  ((wides[I] = foldOnto(wides[I], key, takeWide<sink>(cursor, at + placeOf(I)))), ...);
}

/** Asks for the lines of a later step. `more`: four whole pages follow. */
template <Sink sink, unsigned... I>
MOONCAKE_WIDE void askAhead(const Cursor& cursor, u64 at, bool more, std::integer_sequence<unsigned, I...>) {
  const u64 ahead = at + AHEAD < PAGE ? at + AHEAD : at + AHEAD + PAGES - PAGE;
  if (more || ahead < PAGE) (askFor<sink>(cursor, ahead + placeOf(I)), ...);
}

/** The state after all that fills four pages; there is at least that. */
template <Sink sink, unsigned... I>
MOONCAKE_WIDE Wide foldPages(Cursor& cursor, u64 crc, std::integer_sequence<unsigned, I...> all) {
  const Wide within = inEveryLane(withinPages);
  const Wide across = inEveryLane(acrossPages);
  Wide wides[SIDE_BY_SIDE] = {takeWide<sink>(cursor, placeOf(I))...};
  wides[0] = addStart(wides[0], crc);
  for (;;) {
    const bool more = cursor.left >= 2 * PAGES;
    for (u64 at = PAGES_STEP; at < PAGE; at += PAGES_STEP) {
      askAhead<sink>(cursor, at, more, all);
      foldPagesStep<sink>(wides, within, cursor, at, all);
    }
    cursor.advance<sink>(PAGES);
    if (cursor.left < PAGES) break;
    foldPagesStep<sink>(wides, across, cursor, 0, all);
  }
  return join(wides, mirroredKey(512), mirroredKey(8 * PAGE), mirroredKey(8 * 2 * PAGE));
}

/** Four pages of a copy that sums its source twice: onto `stored`, where it `copies`, those at the cursor; `again` onto `kept`
    those before it, which the first-level cache still has. The second sum is work for ports that would wait for memory. */
template <bool copies, bool again>
MOONCAKE_WIDE void foldPagesTwice(const Cursor& cursor, Wide (&stored)[SIDE_BY_SIDE], Wide (&kept)[SIDE_BY_SIDE]) {
  constexpr Registers all;
  const bool more = cursor.left >= 2 * PAGES;
  Wide key = inEveryLane(acrossPages);
  for (u64 at = 0; at < PAGE; at += PAGES_STEP, key = inEveryLane(withinPages)) {
    if constexpr (copies) {
      askAhead<Sink::streaming>(cursor, at, more, all);
      foldPagesStep<Sink::streaming>(stored, key, cursor, at, all);
    }
    if constexpr (again) foldPagesStep<Sink::none>(kept, key, {nullptr, cursor.from - PAGES, PAGES}, at, all);
  }
}

/** Copies all that fills four pages; there is at least that. Registers are compared as they are: sums that differ need some that do. */
MOONCAKE_WIDE bool streamPagesTwice(Cursor& cursor) {
  Wide stored[SIDE_BY_SIDE] = {};
  Wide kept[SIDE_BY_SIDE] = {};
  foldPagesTwice<true, false>(cursor, stored, kept);
  for (cursor.advance<Sink::streaming>(PAGES); cursor.left >= PAGES; cursor.advance<Sink::streaming>(PAGES)) {
    foldPagesTwice<true, true>(cursor, stored, kept);
  }
  foldPagesTwice<false, true>(cursor, stored, kept);
  __mmask8 differing = 0;
  for (unsigned i = 0; i < SIDE_BY_SIDE; i++) differing |= _mm512_cmpneq_epi64_mask(stored[i], kept[i]);
  streamFence();
  return differing == 0;
}

/** The four lanes of a register onto the last, mirrored no more. */
MOONCAKE_WIDE Lane joinLanes(Wide state) {
  constexpr FoldKey by3 = mirroredKey(384);
  constexpr FoldKey by2 = mirroredKey(256);
  constexpr FoldKey by1 = mirroredKey(128);
  const Wide key = _mm512_set_epi64(0, 0, static_cast<long long>(by1.high), static_cast<long long>(by1.low),
                                    static_cast<long long>(by2.high), static_cast<long long>(by2.low),
                                    static_cast<long long>(by3.high), static_cast<long long>(by3.low));
  const Wide moved = foldOnto(state, key, _mm512_maskz_mov_epi64(0xc0, state));
  const Lane last = add(add(_mm512_extracti32x4_epi32(moved, 0), _mm512_extracti32x4_epi32(moved, 1)),
                        add(_mm512_extracti32x4_epi32(moved, 2), _mm512_extracti32x4_epi32(moved, 3)));
  return reverseBytes(_mm512_castsi512_si128(turnBits(_mm512_zextsi128_si512(last))));
}

/** The state after all that fills a register; there is at least that. */
template <Sink sink>
MOONCAKE_WIDE Wide foldWides(Cursor& cursor, u64 crc) {
  Wide state;
  if (cursor.left >= PAGES) {
    state = foldPages<sink>(cursor, crc, Registers());
  } else if (cursor.left >= STEP) {
    state = foldSteps<sink>(cursor, crc, Registers());
  } else {
    state = addStart(takeWide<sink>(cursor, 0), crc);
    cursor.advance<sink>(64);
  }
  const Wide by1 = inEveryLane(mirroredKey(512));
  for (; cursor.left >= 64; cursor.advance<sink>(64)) {
    state = foldOnto(state, by1, takeWide<sink>(cursor, 0));
  }
  return state;
}

template <Sink sink>
MOONCAKE_WIDE_TARGET u64 run(u8* to, const u8* from, u64 length, u64 crc) {
  Cursor cursor{to, from, length};
  if constexpr (sink == Sink::streaming) crc = alignDestination(cursor, 64, crc);
  if (cursor.left < 16) return takeShort<sink>(cursor, crc);
  const Lane state = cursor.left >= 64 ? joinLanes(foldWides<sink>(cursor, crc)) : takeStart<sink>(cursor, crc);
  const u64 crcOfAll = finish<sink>(state, cursor);
  if constexpr (sink == Sink::streaming) streamFence();
  return crcOfAll;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

MOONCAKE_WIDE_TARGET bool streamTwice(u8* to, const u8* from, u64 length) {
  Cursor cursor{to, from, length};
  const u64 head = alignDestination(cursor, 64, 0);
  if (sum(from, length - cursor.left, 0) != head) return false;
  if (cursor.left >= PAGES && !streamPagesTwice(cursor)) return false;
  return copyTwice<run<Sink::streaming>, sum>(cursor.to, cursor.from, cursor.left);
}

}  // namespace

const Form vpclmul512Form{"vpclmul512", sum, run<Sink::cached>, run<Sink::streaming>, streamTwice};

}  // namespace mooncake::checksum

#endif
