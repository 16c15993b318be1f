// A lane on arm64: PMULL (the "crypto" extension) and Advanced SIMD.
#pragma once

#include "checksum/polynomial.h"

#include <arm_neon.h>

#define MOONCAKE_LANE_TARGET __attribute__((target("+crypto")))
#define MOONCAKE_LANE __attribute__((target("+crypto"), always_inline)) inline

namespace mooncake::checksum {

using Lane = uint64x2_t;

MOONCAKE_LANE Lane loadLane(const u8* from) { return vreinterpretq_u64_u8(vld1q_u8(from)); }
MOONCAKE_LANE void storeLane(u8* to, Lane v) { vst1q_u8(to, vreinterpretq_u8_u64(v)); }
// Arm's non-temporal pairs are hints that its cores get no speed from; they detect long runs of stores themselves.
MOONCAKE_LANE void streamLane(u8* to, Lane v) { storeLane(to, v); }
MOONCAKE_LANE void streamFence() {}

MOONCAKE_LANE Lane makeLane(u64 high, u64 low) { return vcombine_u64(vcreate_u64(low), vcreate_u64(high)); }
MOONCAKE_LANE u64 lowOf(Lane v) { return vgetq_lane_u64(v, 0); }
MOONCAKE_LANE u64 highOf(Lane v) { return vgetq_lane_u64(v, 1); }

MOONCAKE_LANE Lane add(Lane a, Lane b) { return veorq_u64(a, b); }
/** Byte i of the result is byte `indices[i]` of `v`; 0 where the index is 0x80. */
MOONCAKE_LANE Lane pick(Lane v, Lane indices) {
  return vreinterpretq_u64_u8(vqtbl1q_u8(vreinterpretq_u8_u64(v), vreinterpretq_u8_u64(indices)));
}
MOONCAKE_LANE Lane reverseBytes(Lane v) {
  const uint8x16_t halves = vrev64q_u8(vreinterpretq_u8_u64(v));
  return vreinterpretq_u64_u8(vextq_u8(halves, halves, 8));
}
MOONCAKE_LANE Lane multiplyLow(Lane a, Lane b) {
  return vreinterpretq_u64_p128(
      vmull_p64(static_cast<poly64_t>(vgetq_lane_u64(a, 0)), static_cast<poly64_t>(vgetq_lane_u64(b, 0))));
}
MOONCAKE_LANE Lane multiplyHigh(Lane a, Lane b) {
  return vreinterpretq_u64_p128(vmull_high_p64(vreinterpretq_p64_u64(a), vreinterpretq_p64_u64(b)));
}

}  // namespace mooncake::checksum
