// Many copies at once, summed on the way: the calling thread does them together with threads that help, and returns when the
// last one has ended. So nothing is copied behind the back of a caller that goes on to give memory away.
#pragma once

#include "checksum/copy.h"

#include <span>
#include <vector>

namespace mooncake {

class CopyPool;

struct CopyPiece {
  u8* to = nullptr;
  const u8* from = nullptr;
  u64 length = 0;
  /** Which sum the piece continues; NO_SUM: none. */
  u32 sum = 0;
  Store store = Store::cached;
};

inline constexpr u32 NO_SUM = UINT32_MAX;

/**
 * Copies all pieces; those of one sum in their order, the others in any. Ranges of one piece may overlap; destinations must not overlap
 * any range of another piece. `sums` are continued. Without a `pool` the process's own threads help, which wait for work until it ends.
 */
void copyPieces(std::vector<CopyPiece> pieces, std::span<u64> sums, CopyPool* pool = nullptr);

}  // namespace mooncake
