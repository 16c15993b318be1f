// Pieces of one sum are a chain, which one thread copies; threads take the next chain when they are done with one. Whoever
// comes when nothing is left finds that out from the state alone, which it holds a reference to, and touches nothing else.
#include "transport/parallel_copy.h"

#include "checksum/crc64.h"
#include "transport/copy_pool.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace mooncake {

namespace {

/** Bytes that are copied in the time in which a thread wakes up. */
constexpr u64 HELPED_BYTES = 1 << 20;
constexpr u32 MOST_HELPERS = 3;
constexpr u32 NONE = UINT32_MAX;
/** Between two calls of a caller that has more to copy. */
constexpr std::chrono::microseconds SPIN{50};

/** Of this process; its threads wait for work until it ends. */
CopyPool& helpers() {
  static CopyPool& pool = *new CopyPool(std::min(MOST_HELPERS, std::max(1u, std::thread::hardware_concurrency()) - 1), SPIN);
  return pool;
}

struct Copies {
  std::vector<CopyPiece> pieces;
  std::vector<u32> chains;  // their first pieces
  std::vector<u32> next;    // of each piece, the one behind it in its chain
  u64* sums = nullptr;
  std::atomic<u32> taken{0};
  std::atomic<u32> done{0};

  void copy(const CopyPiece& piece) const {
    const auto [to, from, length, sum, store] = piece;
    const bool overlap = to < from + length && from < to + length;
    if (overlap) std::memmove(to, from, length);
    else if (sum == NO_SUM) copyBytes(to, from, length, store);
    else sums[sum] = copyCrc64(to, from, length, sums[sum], store);
    if (overlap && sum != NO_SUM) sums[sum] = crc64(to, length, sums[sum]);
  }

  void work() {
    for (;;) {
      const u32 chain = taken.fetch_add(1, std::memory_order_relaxed);
      if (chain >= chains.size()) return;
      for (u32 piece = chains[chain]; piece != NONE; piece = next[piece]) copy(pieces[piece]);
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == chains.size()) done.notify_all();
    }
  }
};

void help(void*, void* item) {
  const std::unique_ptr<std::shared_ptr<Copies>> copies(static_cast<std::shared_ptr<Copies>*>(item));
  (*copies)->work();
}

}  // namespace

void copyPieces(std::vector<CopyPiece> pieces, std::span<u64> sums, CopyPool* pool) {
  const auto copies = std::make_shared<Copies>();
  copies->sums = sums.data();
  copies->next.assign(pieces.size(), NONE);
  std::vector<u32> last(sums.size(), NONE);
  u64 bytes = 0;
  for (u32 i = 0; i < pieces.size(); i++) {
    const u32 sum = pieces[i].sum;
    bytes += pieces[i].length;
    if (sum != NO_SUM && last[sum] != NONE) copies->next[last[sum]] = i;
    else copies->chains.push_back(i);
    if (sum != NO_SUM) last[sum] = i;
  }
  copies->pieces = std::move(pieces);
  const u32 chains = static_cast<u32>(copies->chains.size());
  if (bytes >= HELPED_BYTES) {
    if (pool == nullptr) pool = &helpers();
    for (u32 i = 0; i < pool->threads() && i + 1 < chains; i++) {
      auto held = std::make_unique<std::shared_ptr<Copies>>(copies);
      if (!pool->submit({help, nullptr, held.get()})) break;
      static_cast<void>(held.release());
    }
  }
  copies->work();
  for (u32 done = copies->done; done != chains; done = copies->done) copies->done.wait(done);
}

}  // namespace mooncake
