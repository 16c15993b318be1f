// A lane on x86-64: PCLMULQDQ and SSSE3, which every processor with AVX has.
#pragma once

#include "checksum/polynomial.h"

#include <immintrin.h>

#define MOONCAKE_LANE_TARGET __attribute__((target("pclmul,ssse3")))
#define MOONCAKE_LANE __attribute__((target("pclmul,ssse3"), always_inline)) inline

namespace mooncake::checksum {

using Lane = __m128i;

MOONCAKE_LANE Lane loadLane(const u8* from) { return _mm_loadu_si128(reinterpret_cast<const Lane*>(from)); }
MOONCAKE_LANE void storeLane(u8* to, Lane v) { _mm_storeu_si128(reinterpret_cast<Lane*>(to), v); }
MOONCAKE_LANE void streamLane(u8* to, Lane v) { _mm_stream_si128(reinterpret_cast<Lane*>(to), v); }
/** Streamed bytes are visible to whoever sees a later store. */
MOONCAKE_LANE void streamFence() { _mm_sfence(); }

MOONCAKE_LANE Lane makeLane(u64 high, u64 low) {
  return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
}
MOONCAKE_LANE u64 lowOf(Lane v) { return static_cast<u64>(_mm_cvtsi128_si64(v)); }
MOONCAKE_LANE u64 highOf(Lane v) { return lowOf(_mm_unpackhi_epi64(v, v)); }

MOONCAKE_LANE Lane add(Lane a, Lane b) { return _mm_xor_si128(a, b); }
/** Byte i of the result is byte `indices[i]` of `v`; 0 where the index is 0x80. */
MOONCAKE_LANE Lane pick(Lane v, Lane indices) { return _mm_shuffle_epi8(v, indices); }
MOONCAKE_LANE Lane reverseBytes(Lane v) {
  return pick(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
MOONCAKE_LANE Lane multiplyLow(Lane a, Lane b) { return _mm_clmulepi64_si128(a, b, 0x00); }
MOONCAKE_LANE Lane multiplyHigh(Lane a, Lane b) { return _mm_clmulepi64_si128(a, b, 0x11); }

}  // namespace mooncake::checksum
