// The form for PCLMULQDQ (x86-64) and PMULL (arm64): eight lanes, 128 bytes a step.
#include "checksum/lane.h"

namespace mooncake::checksum {
namespace {

constexpr u64 STEP = 16 * SIDE_BY_SIDE;

/** The state after all steps of `STEP` bytes; there is at least one. */
template <Sink sink, unsigned... I>
MOONCAKE_LANE Lane foldSteps(Cursor& cursor, u64 crc, std::integer_sequence<unsigned, I...>) {
  Lane lanes[SIDE_BY_SIDE] = {takeLane<sink>(cursor, 16 * I)...};
  lanes[0] = add(lanes[0], makeLane(crc, 0));
  cursor.advance<sink>(STEP);

  const Lane key = keyLane(foldKey(8 * STEP));
  for (; cursor.left >= STEP; cursor.advance<sink>(STEP)) {
    prefetchLine<sink>(cursor, 0);
    prefetchLine<sink>(cursor, 64);
    ((lanes[I] = add(fold(lanes[I], key), takeLane<sink>(cursor, 16 * I))), ...);
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
      cursor.left >= STEP ? foldSteps<sink>(cursor, crc, Registers()) : takeStart<sink>(cursor, crc);
  const u64 crcOfAll = finish<sink>(state, cursor);
  if constexpr (sink == Sink::streaming) streamFence();
  return crcOfAll;
}

u64 sum(const u8* data, u64 length, u64 crc) { return run<Sink::none>(nullptr, data, length, crc); }

}  // namespace

#if defined(__x86_64__)
const Form pclmulForm{"pclmul", sum, run<Sink::cached>, run<Sink::streaming>,
                      copyTwice<run<Sink::streaming>, sum>};
#else
const Form pmullForm{"pmull", sum, run<Sink::cached>, run<Sink::streaming>, copyTwice<run<Sink::streaming>, sum>};
#endif
}  // namespace mooncake::checksum
