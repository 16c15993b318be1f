#include "checksum/copy.h"

#include "checksum/crc64.h"
#include "checksum/forms.h"

#include <cstring>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mooncake {
namespace {

bool streams(Store store, u64 length) {
  switch (store) {
    case Store::cached:
      return false;
    case Store::streaming:
      return true;
    case Store::automatic:
      return length >= streamingThreshold();
  }
  return false;
}

#if defined(__x86_64__)
constexpr u64 LINE = 64;
constexpr u64 PAGE = 4096;
/** How far ahead lines are asked for: see vpclmul512.cpp. */
constexpr u64 AHEAD = 512;

/** A cache line, whole, so that it is written without being read. */
void streamLine(u8* to, const u8* from) {
  const auto* source = reinterpret_cast<const __m128i*>(from);
  auto* target = reinterpret_cast<__m128i*>(to);
  const __m128i a = _mm_loadu_si128(source);
  const __m128i b = _mm_loadu_si128(source + 1);
  const __m128i c = _mm_loadu_si128(source + 2);
  const __m128i d = _mm_loadu_si128(source + 3);
  _mm_stream_si128(target, a);
  _mm_stream_si128(target + 1, b);
  _mm_stream_si128(target + 2, c);
  _mm_stream_si128(target + 3, d);
}

/** Lines of four pages in turn: the processor reads ahead within a page, so that four are read ahead at once. */
void copyStreaming(u8* to, const u8* from, u64 length) {
  u64 head = -reinterpret_cast<std::uintptr_t>(to) & (LINE - 1);
  if (head > length) head = length;
  std::memcpy(to, from, head);
  u64 at = head;
  for (; at + 4 * PAGE <= length; at += 4 * PAGE) {
    const bool more = length - at >= 8 * PAGE;
    for (u64 line = at; line < at + PAGE; line += 2 * LINE) {
      const bool within = line + AHEAD < at + PAGE;
      const u64 ahead = within ? AHEAD : AHEAD + 3 * PAGE;
      for (u64 place = line; place < line + 4 * PAGE; place += PAGE) {
        if (more || within) {
          __builtin_prefetch(from + place + ahead, 0, 2);
          __builtin_prefetch(from + place + ahead + LINE, 0, 2);
        }
        streamLine(to + place, from + place);
        streamLine(to + place + LINE, from + place + LINE);
      }
    }
  }
  for (; at + LINE <= length; at += LINE) streamLine(to + at, from + at);
  _mm_sfence();
  std::memcpy(to + at, from + at, length - at);
}
#else
void copyStreaming(u8* to, const u8* from, u64 length) { std::memcpy(to, from, length); }
#endif

}  // namespace

u64 streamingThreshold() {
  static const u64 threshold = [] {
    long secondLevel = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    secondLevel = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return secondLevel > 0 ? static_cast<u64>(secondLevel) : u64{1} << 20;
  }();
  return threshold;
}

void copyBytes(u8* destination, const u8* source, u64 length, Store store) {
  if (length == 0) return;
  streams(store, length) ? copyStreaming(destination, source, length)
                         : static_cast<void>(std::memcpy(destination, source, length));
}

u64 copyCrc64(u8* destination, const u8* source, u64 length, u64 crc, Store store) {
  const checksum::Form& form = checksum::bestForm();
  return streams(store, length) ? form.stream(destination, source, length, crc)
                                : form.copy(destination, source, length, crc);
}

bool copyUnchanged(u8* destination, const u8* source, u64 length, Store store) {
  if (streams(store, length)) return checksum::bestForm().streamTwice(destination, source, length);
  constexpr auto copy = [](u8* to, const u8* from, u64 bytes, u64 crc) {
    return checksum::bestForm().copy(to, from, bytes, crc);
  };
  return checksum::copyTwice<copy, crc64>(destination, source, length);
}

}  // namespace mooncake
