// Memory of our own: anonymous files (memfd), so that local peers can map it, sealed so that nobody can take pages away
// from under them. Pages come when they are first touched.
#pragma once

#include "memory/segment.h"

namespace mooncake {

struct AllocateOptions {
  /** 2 MiB pages where the machine has enough of them reserved, transparent huge pages otherwise. */
  bool hugePages = true;
  /** Where its pages shall be; -1: wherever. */
  int numaNode = -1;
  /** Peers may write it. */
  bool writable = true;
};

/** A mapping; unmapped when its last owner goes. */
class Mapping {
 public:
  Mapping(u8* base, u64 length) : base_(base), length_(length) {}
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  u8* base() const { return base_; }
  u64 length() const { return length_; }

 private:
  u8* const base_;
  const u64 length_;
};

/** A segment that is in the table, and its bytes for others who want to keep them. */
struct Allocation {
  u32 id = 0;
  std::shared_ptr<Mapping> mapping;
};

/** Zeroed memory of `length` bytes, registered. */
Expected<Allocation> allocate(MemoryTable& memory, u64 length, const AllocateOptions& options);

}  // namespace mooncake
