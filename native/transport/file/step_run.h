// A step on its way: which system call comes next, and what its result means. Both runners drive it, so short
// reads and writes, retries and errors mean the same with io_uring and with threads.
#pragma once

#include "transport/file/plan.h"

namespace mooncake::file {

/** pread or pwrite of these. */
struct Request {
  bool write = false;
  int fd = -1;
  u8* memory = nullptr;
  u64 offset = 0;
  u64 length = 0;
};

class StepRun {
public:
  StepRun() = default;
  /** `bounce` has BOUNCE_BYTES bytes where the step asks for it. */
  StepRun(const Step& step, u8* bounce);

  /** The next call to make; false where there is none any more, see `status`. */
  bool next(Request& request) const;

  /** What that call returned: bytes, or an errno below zero. */
  void completed(std::int64_t result);

  const Status& status() const { return status_; }

private:
  enum class Phase : u8 { load, store, finished };

  const End& end() const { return phase_ == Phase::load ? step_.source : step_.target; }
  void finish(Status status);
  void loaded();
  void failed(int error);
  Status describe(int error) const;

  Step step_;
  u8* buffer_ = nullptr;
  Phase phase_ = Phase::finished;
  u64 done_ = 0;
  u32 retries_ = 0;
  Status status_;
};

} // namespace mooncake::file
