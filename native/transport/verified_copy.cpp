// A copy out of cache waits for memory, a sum of what was just written does not: so both go along together, the sum some
// kilobytes behind. Stores that leave the line in the cache first read it from memory, which is asked for ahead.
#include "transport/verified_copy.h"

#include "checksum/copy.h"
#include "checksum/crc64.h"

#include <algorithm>
#include <cstring>

namespace mooncake {

namespace {

/** Measured over 64 KiB to 1 MiB blocks that lie in no cache: 0.97 of memcpy's speed; 0.6 without asking ahead. */
constexpr u64 STEP = 512;
constexpr u64 AHEAD = 2048;
/** More than the store buffer holds, less than the first-level cache. */
constexpr u64 BEHIND = 8192;
constexpr u64 LINE = 64;

/** Asks for the lines [at, at + STEP) of a range of `length`. */
void ask(u8* to, const u8* from, u64 at, u64 length) {
  const u64 end = std::min(at + STEP, length);
  for (u64 line = at; line < end; line += LINE) {
    __builtin_prefetch(from + line, 0);
    __builtin_prefetch(to + line, 1);
  }
}

bool overlap(const u8* a, const u8* b, u64 length) {
  const u64 first = reinterpret_cast<u64>(a);
  const u64 second = reinterpret_cast<u64>(b);
  return first < second + length && second < first + length;
}

}  // namespace

bool copyVerified(u8* to, const u8* from, u64 length) {
  if (overlap(to, from, length)) {
    const u64 read = crc64(from, length, 0);
    std::memmove(to, from, length);
    return crc64(to, length, 0) == read;
  }
  u64 read = 0;
  u64 written = 0;
  u64 summed = 0;
  for (u64 at = 0; at < AHEAD; at += STEP) ask(to, from, at, length);
  for (u64 at = 0; at < length; at += STEP) {
    ask(to, from, at + AHEAD, length);
    read = copyCrc64(to + at, from + at, std::min(STEP, length - at), read, Store::cached);
    if (at < BEHIND) continue;
    written = crc64(to + summed, STEP, written);
    summed += STEP;
  }
  written = crc64(to + summed, length - summed, written);
  return written == read;
}

}  // namespace mooncake
