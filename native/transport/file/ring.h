// An io_uring by raw system calls, used by one thread. Submissions are gathered and go to the kernel together
// with the next wait. Whoever uses it has at most `capacity` operations under way, so neither ring can
// overflow.
#pragma once

#include "transport/file/uring_abi.h"

#include <memory>

namespace mooncake::file::uring {

class Ring {
public:
  /** Fails with notSupported where the kernel is too old or forbids it (seccomp, kernel.io_uring_disabled,
   * memlock). */
  static Expected<std::unique_ptr<Ring>> open(u32 capacity);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /** A zeroed submission to fill in. There must be fewer than `capacity` of them since the last `enter`. */
  Submission& prepare();

  /** Hands over what was prepared and waits for one completion or more; a signal may end it early. */
  [[nodiscard]] Status enter();

  /** Takes back what was prepared last and not handed over; false where there is none. For when `enter`
   * fails. */
  bool withdraw(u64& userData);

  /** The next completion; false where there is none yet. */
  bool take(Completion& out);

  u32 features() const { return features_; }

private:
  Ring() = default;

  int fd_ = -1;
  u32 features_ = 0;
  void* rings_ = nullptr;
  u64 ringsLength_ = 0;
  Submission* submissions_ = nullptr;
  u64 submissionsLength_ = 0;
  u32 submissionMask_ = 0;
  u32 completionMask_ = 0;
  // Shared with the kernel, which writes the submissions' head and the completions' tail.
  u32* submissionTail_ = nullptr;
  u32* submissionArray_ = nullptr;
  u32* completionHead_ = nullptr;
  u32* completionTail_ = nullptr;
  Completion* completions_ = nullptr;
  u32 tail_ = 0;
  u32 handedOver_ = 0;
};

} // namespace mooncake::file::uring
