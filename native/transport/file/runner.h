// What makes the system calls of the file link: an io_uring with a thread of its own, or threads that call
// pread and pwrite. Buffered I/O and the start of direct I/O may block, so neither is done on the thread that
// posts.
#pragma once

#include "transport/file/jobs.h"

namespace mooncake::file {

class Runner {
public:
  virtual ~Runner() = default;
  /** Jobs were pushed or given up. From any thread. */
  virtual void wake() = 0;
  /** Joins its threads; the jobs were stopped before. Idempotent, from one thread at a time; `wake` may still
   * be called. */
  virtual void close() = 0;
};

/** notSupported where the kernel forbids io_uring or has none that does. */
Expected<std::unique_ptr<Runner>> startUring(Jobs& jobs);

Expected<std::unique_ptr<Runner>> startThreads(Jobs& jobs);

/** Page-aligned memory for `count` bounce buffers; empty where there is none. */
class BounceBuffers {
public:
  static Expected<BounceBuffers> allocate(u32 count);
  BounceBuffers() = default;
  BounceBuffers(BounceBuffers&& other) noexcept;
  BounceBuffers& operator=(BounceBuffers&& other) noexcept;
  ~BounceBuffers();

  u8* at(u32 index) const { return base_ + index * BOUNCE_BYTES; }

private:
  u8* base_ = nullptr;
  u64 length_ = 0;
};

} // namespace mooncake::file
