// The form for PCLMULQDQ (x86-64) and PMULL (arm64): eight lanes, 128 bytes a step, because a carry-less multiplication
// takes several cycles until its result can be used.
#include "checksum/lane.h"

namespace mooncake::checksum {
namespace {

constexpr unsigned LANES = 8;
constexpr u64 STEP = 16 * LANES;

/** The state after all steps of `STEP` bytes; there is at least one. */
template <Sink sink>
MOONCAKE_LANE Lane foldSteps(Cursor& cursor, u64 crc) {
  Lane lanes[LANES];
  MOONCAKE_UNROLL
  for (unsigned i = 0; i < LANES; i++) lanes[i] = takeLane<sink>(cursor);
  lanes[0] = add(lanes[0], makeLane(crc, 0));

  const Lane key = keyLane(foldKey(8 * STEP));
  while (cursor.left >= STEP) {
    MOONCAKE_UNROLL
    for (unsigned i = 0; i < LANES; i++) lanes[i] = add(fold(lanes[i], key), takeLane<sink>(cursor));
  }
  // Neighbours onto each other, then the pairs, then the fours: the last lane holds all.
  const Lane by1 = keyLane(foldKey(128));
  const Lane by2 = keyLane(foldKey(256));
  const Lane by4 = keyLane(foldKey(512));
  lanes[1] = add(lanes[1], fold(lanes[0], by1));
  lanes[3] = add(lanes[3], fold(lanes[2], by1));
  lanes[5] = add(lanes[5], fold(lanes[4], by1));
  lanes[7] = add(lanes[7], fold(lanes[6], by1));
  lanes[3] = add(lanes[3], fold(lanes[1], by2));
  lanes[7] = add(lanes[7], fold(lanes[5], by2));
  return add(lanes[7], fold(lanes[3], by4));
}

template <Sink sink>
MOONCAKE_LANE_TARGET u64 run(u8* to, const u8* from, u64 length, u64 crc) {
  Cursor cursor{to, from, length};
  if constexpr (sink == Sink::streaming) crc = alignDestination(cursor, 64, crc);
  if (cursor.left < 16) return takeShort<sink>(cursor, crc);
  const Lane state =
      cursor.left >= STEP ? foldSteps<sink>(cursor, crc) : add(takeLane<sink>(cursor), makeLane(crc, 0));
  const u64 crcOfAll = finish<sink>(state, cursor);
  if constexpr (sink == Sink::streaming) streamFence();
  return crcOfAll;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

}  // namespace

#if defined(__x86_64__)
const Form pclmulForm{"pclmul", sum, run<Sink::cached>, run<Sink::streaming>};
#else
const Form pmullForm{"pmull", sum, run<Sink::cached>, run<Sink::streaming>};
#endif
}  // namespace mooncake::checksum
