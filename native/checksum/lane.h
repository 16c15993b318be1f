// Folding in lanes, registers of 128 bits that hold sixteen bytes of the message as one polynomial: the first byte is the
// most significant. What the processor brings is in lane_x86.h and lane_arm64.h; the wider forms end with finish() too.
#pragma once

#include "checksum/forms.h"
#if defined(__x86_64__)
#include "checksum/lane_x86.h"
#else
#include "checksum/lane_arm64.h"
#endif

#include <cstring>
#include <utility>

namespace mooncake::checksum {

MOONCAKE_LANE Lane keyLane(FoldKey key) { return makeLane(key.high, key.low); }

/** `v` moved on by the bits of `key`. */
MOONCAKE_LANE Lane fold(Lane v, Lane key) { return add(multiplyHigh(v, key), multiplyLow(v, key)); }

/** Registers that are folded side by side, because a carry-less multiplication takes several cycles until its result can be
    used. Loops over them are fold expressions over these indices: only what is unrolled is kept in registers. */
constexpr unsigned SIDE_BY_SIDE = 8;
using Registers = std::make_integer_sequence<unsigned, SIDE_BY_SIDE>;

/** The sixteen bytes at `offset` from the cursor, copied on the way. */
template <Sink sink>
MOONCAKE_LANE Lane takeLane(const Cursor& cursor, u64 offset = 0) {
  const Lane bytes = loadLane(cursor.from + offset);
  if constexpr (sink == Sink::cached) storeLane(cursor.to + offset, bytes);
  if constexpr (sink == Sink::streaming) streamLane(cursor.to + offset, bytes);
  return reverseBytes(bytes);
}

/** Asks for the cache line that the fold will want some steps after that at `offset`: the one to be overwritten, or the one to
    be read. The distances are measured; further lines than a page away are not found by the processor itself. */
template <Sink sink>
MOONCAKE_LANE void prefetchLine(const Cursor& cursor, u64 offset) {
  if constexpr (sink == Sink::none) __builtin_prefetch(cursor.from + offset + 4096);
  if constexpr (sink == Sink::cached) __builtin_prefetch(cursor.to + offset + 512, 1);
}

/** pick() indices that move a lane's bytes: those at 16 - n move up by n bytes, those at 16 + n move down. */
inline constexpr u8 shifts[48] = {
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,  //
    0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,    //
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
};
MOONCAKE_LANE Lane shiftUp(Lane v, u64 bytes) { return pick(v, loadLane(shifts + 16 - bytes)); }
MOONCAKE_LANE Lane shiftDown(Lane v, u64 bytes) { return pick(v, loadLane(shifts + 16 + bytes)); }

/** Takes the last 1 to 15 bytes: state and they make 16 + n bytes, of which the first n are folded onto the rest. The
    sixteen bytes before `from + left` must be the message's. */
template <Sink sink>
MOONCAKE_LANE Lane takeTail(Lane state, Cursor& cursor) {
  const u64 n = cursor.left;
  const Lane bytes = loadLane(cursor.from + n - 16);
  if constexpr (sink != Sink::none) {
    u8 last[16];
    storeLane(last, bytes);
    std::memcpy(cursor.to, last + 16 - n, n);
  }
  const Lane tail = shiftDown(shiftUp(reverseBytes(bytes), 16 - n), 16 - n);
  const Lane rest = add(shiftUp(state, n), tail);
  return add(fold(shiftDown(state, 16 - n), keyLane(foldKey(128))), rest);
}

/** state * x^64 mod P. First to 128 bits T = H * (x^128 mod P) + L * x^64, then Barrett: with T = A:B, the quotient is
    floor(A * floor(x^128 / P) / x^64), and the CRC is T less quotient times P. */
MOONCAKE_LANE u64 reduce(Lane state) {
  const Lane folded = multiplyLow(makeLane(0, highOf(state)), makeLane(0, foldKey(128).low));
  const u64 above = highOf(folded) ^ lowOf(state);
  const u64 quotient = above ^ highOf(multiplyLow(makeLane(0, above), makeLane(0, barrettQuotient())));
  return lowOf(folded) ^ lowOf(multiplyLow(makeLane(0, quotient), makeLane(0, polynomial)));
}

/** Folds what is left of the message onto `state`, what is before it; the CRC. */
template <Sink sink>
MOONCAKE_LANE u64 finish(Lane state, Cursor& cursor) {
  const Lane by16 = keyLane(foldKey(128));
  for (; cursor.left >= 16; cursor.advance<sink>(16)) state = add(fold(state, by16), takeLane<sink>(cursor));
  if (cursor.left > 0) state = takeTail<sink>(state, cursor);
  return reduce(state);
}

/** The first sixteen bytes, with the CRC of what was before them. */
template <Sink sink>
MOONCAKE_LANE Lane takeStart(Cursor& cursor, u64 crc) {
  const Lane first = add(takeLane<sink>(cursor), makeLane(crc, 0));
  cursor.advance<sink>(16);
  return first;
}

/** The whole of what is left, for messages that fill no lane. */
template <Sink sink>
u64 takeShort(Cursor cursor, u64 crc) {
  if constexpr (sink == Sink::none) return tableForm.sum(cursor.from, cursor.left, crc);
  return tableForm.copy(cursor.to, cursor.from, cursor.left, crc);
}

/** Copies up to the next multiple of `alignment` of the destination, which streaming stores want; the CRC so far. */
MOONCAKE_LANE u64 alignDestination(Cursor& cursor, u64 alignment, u64 crc) {
  u64 head = -reinterpret_cast<std::uintptr_t>(cursor.to) & (alignment - 1);
  if (head > cursor.left) head = cursor.left;
  crc = tableForm.copy(cursor.to, cursor.from, head, crc);
  cursor.advance<Sink::cached>(head);
  return crc;
}

}  // namespace mooncake::checksum
