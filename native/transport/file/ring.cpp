#include "transport/file/ring.h"

#include <algorithm>
#include <cerrno>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mooncake::file::uring {

namespace {

template <class T> T* at(void* base, u32 offset) {
  return reinterpret_cast<T*>(static_cast<u8*>(base) + offset);
}

void* map(int fd, u64 length, long offset) {
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
  return mapped == MAP_FAILED ? nullptr : mapped;
}

} // namespace

Expected<std::unique_ptr<Ring>> Ring::open(u32 capacity) {
  Parameters parameters{};
  const long fd = syscall(SETUP_CALL, capacity, &parameters);
  if (fd < 0) return systemError("io_uring_setup", errno, Code::notSupported);
  std::unique_ptr<Ring> ring(new Ring);
  ring->fd_ = static_cast<int>(fd);
  ring->features_ = parameters.features;
  constexpr u32 needed = FEATURE_SINGLE_MAP | FEATURE_NO_DROP | FEATURE_FAST_POLL;
  if ((parameters.features & needed) != needed) {
    return Status(Code::notSupported, "io_uring: this kernel's is older than Linux 5.7");
  }
  const SubmissionOffsets& submission = parameters.submissionOffsets;
  const CompletionOffsets& completion = parameters.completionOffsets;
  ring->ringsLength_ = std::max(submission.array + parameters.submissions * sizeof(u32),
                                completion.completions + parameters.completions * sizeof(Completion));
  ring->submissionsLength_ = parameters.submissions * sizeof(Submission);
  ring->rings_ = map(ring->fd_, ring->ringsLength_, OFFSET_RINGS);
  if (!ring->rings_) return systemError("mmap of an io_uring", errno, Code::notSupported);
  ring->submissions_ = static_cast<Submission*>(map(ring->fd_, ring->submissionsLength_, OFFSET_ENTRIES));
  if (!ring->submissions_) return systemError("mmap of an io_uring", errno, Code::notSupported);
  ring->submissionMask_ = *at<u32>(ring->rings_, submission.mask);
  ring->submissionTail_ = at<u32>(ring->rings_, submission.tail);
  ring->submissionArray_ = at<u32>(ring->rings_, submission.array);
  ring->completionMask_ = *at<u32>(ring->rings_, completion.mask);
  ring->completionHead_ = at<u32>(ring->rings_, completion.head);
  ring->completionTail_ = at<u32>(ring->rings_, completion.tail);
  ring->completions_ = at<Completion>(ring->rings_, completion.completions);
  return ring;
}

Ring::~Ring() {
  if (submissions_) munmap(submissions_, submissionsLength_);
  if (rings_) munmap(rings_, ringsLength_);
  if (fd_ >= 0) ::close(fd_);
}

Submission& Ring::prepare() {
  const u32 index = tail_++ & submissionMask_;
  submissionArray_[index] = index;
  submissions_[index] = {};
  return submissions_[index];
}

Status Ring::enter() {
  __atomic_store_n(submissionTail_, tail_, __ATOMIC_RELEASE);
  const long taken = syscall(ENTER_CALL, fd_, tail_ - handedOver_, 1, ENTER_GET_EVENTS, nullptr, 0);
  if (taken >= 0) {
    handedOver_ += static_cast<u32>(taken);
    return {};
  }
  // EAGAIN, EBUSY: the kernel is short of memory until something completes; what was not taken is handed over
  // next time.
  if (errno == EINTR || errno == EAGAIN || errno == EBUSY) return {};
  return systemError("io_uring_enter", errno);
}

bool Ring::withdraw(u64& userData) {
  if (tail_ == handedOver_) return false;
  userData = submissions_[--tail_ & submissionMask_].userData;
  return true;
}

bool Ring::take(Completion& out) {
  const u32 head = *completionHead_;
  if (head == __atomic_load_n(completionTail_, __ATOMIC_ACQUIRE)) return false;
  out = completions_[head & completionMask_];
  __atomic_store_n(completionHead_, head + 1, __ATOMIC_RELEASE);
  return true;
}

} // namespace mooncake::file::uring
