// The forms of the checksum, one a file: the same sum by different instructions. forms() lists those that the
// machine can run; crc64() and copyCrc64() use the first.
#pragma once

#include "engine/status.h"

#include <vector>

namespace mooncake::checksum {

struct Form {
  const char* name;
  u64 (*sum)(const u8* data, u64 length, u64 crc);
  /** Sum and copy in one pass, with plain stores. */
  u64 (*copy)(u8* destination, const u8* source, u64 length, u64 crc);
  /** The same with non-temporal stores where the form has them. */
  u64 (*stream)(u8* destination, const u8* source, u64 length, u64 crc);
  /** Such a copy, whose source is summed again while it is in a cache: whether both sums are the same. */
  bool (*streamTwice)(u8* destination, const u8* source, u64 length);
};

/** Slicing by 16: tables of 32 KiB. Every machine. */
extern const Form tableForm;
#if defined(__x86_64__)
extern const Form pclmulForm;
extern const Form vpclmul256Form;
extern const Form vpclmul512Form;
#elif defined(__aarch64__)
extern const Form pmullForm;
#endif

/** The forms that this machine can run, the fastest first. */
const std::vector<Form>& forms();
/** Chosen once; any thread. */
const Form& bestForm();

/** Bytes that are still in the second-level cache, with what a copy of them touches, when they are summed a second time; and
    enough of them for a form to ask for its next pages ahead. */
inline constexpr u64 TILE = 64 << 10;

/** `copy` by tiles, each of which is summed again: whether all sums are the same. */
template <auto copy, auto sum>
bool copyTwice(u8* destination, const u8* source, u64 length) {
  for (u64 at = 0; at < length; at += TILE) {
    const u64 bytes = length - at < TILE ? length - at : TILE;
    // In this order, which operands of one comparison need not have.
    const u64 stored = copy(destination + at, source + at, bytes, 0);
    if (sum(source + at, bytes, 0) != stored) return false;
  }
  return true;
}

/** What a form does with the bytes that it sums. */
enum class Sink : u8 { none, cached, streaming };

/** How far a form has come. `to` is null where nothing is copied. */
struct Cursor {
  u8* to;
  const u8* from;
  u64 left;

  template <Sink sink>
  void advance(u64 bytes) {
    if constexpr (sink != Sink::none) to += bytes;
    from += bytes;
    left -= bytes;
  }
};

}  // namespace mooncake::checksum
