// A tile at a time. The destination is read again when the tile after it has been copied: it is still in a cache, so that this
// costs a tenth of the copy, and what a later store took away shows.
#include "transport/verified_copy.h"

#include "checksum/copy.h"
#include "checksum/crc64.h"

#include <algorithm>
#include <cstring>

namespace mooncake {

namespace {

/** Measured over blocks of 4 KiB to 1 MiB that lie in no cache: 0.92 of memcpy's speed and more. */
constexpr u64 TILE = 16 << 10;

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
  for (u64 at = 0; at < length; at += TILE) {
    read = copyCrc64(to + at, from + at, std::min(TILE, length - at), read, Store::cached);
    if (at == 0) continue;
    written = crc64(to + summed, TILE, written);
    summed += TILE;
  }
  return crc64(to + summed, length - summed, written) == read;
}

}  // namespace mooncake
