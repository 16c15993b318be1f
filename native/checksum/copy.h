// Copies, plain and summed on the way: each byte is loaded once, so that the sum is of what was stored, whatever others
// do to the source meanwhile.
#pragma once

#include "engine/status.h"

namespace mooncake {

enum class Store : u8 {
  /** What was written is likely read soon, and fits a cache. */
  cached,
  /** Non-temporal stores: past the caches, which saves reading the lines that are overwritten. */
  streaming,
  /** Streaming from streamingThreshold() on. */
  automatic,
};

/** Whether there are such stores; elsewhere streaming is the same as cached. */
#if defined(__x86_64__)
inline constexpr bool STREAMING = true;
#else
inline constexpr bool STREAMING = false;
#endif

/** Bytes from which streaming is faster: the size of the second-level cache, which such a copy and its source no longer
    fit. Whoever moves many small pieces that are used once asks for streaming itself. */
[[nodiscard]] u64 streamingThreshold();

/** Copies `length` bytes between ranges that do not overlap. */
void copyBytes(u8* destination, const u8* source, u64 length, Store store = Store::automatic);

/** Copies as copyBytes does; the CRC-64 of what was stored, continued from `crc`. */
[[nodiscard]] u64 copyCrc64(u8* destination, const u8* source, u64 length, u64 crc,
                            Store store = Store::automatic);

/** Copies; whether the source, summed again while it is in a cache, still is what was stored. Otherwise the destination may be a
    mixture of what it was before and after somebody wrote it. The destination is not read: stores that went past the caches
    would cost a second copy. */
[[nodiscard]] bool copyUnchanged(u8* destination, const u8* source, u64 length, Store store = Store::automatic);

}  // namespace mooncake
