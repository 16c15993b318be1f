// The part of Linux's io_uring interface that is used here, as <linux/io_uring.h> has it: headers of the
// systems that this is built on are older than the kernels it runs on. Layouts are the kernel's
// (include/uapi/linux/io_uring.h, Linux 5.7).
#pragma once

#include "engine/status.h"

namespace mooncake::file::uring {

// The same numbers on x86-64 and arm64.
constexpr long SETUP_CALL = 425;
constexpr long ENTER_CALL = 426;

constexpr u32 FEATURE_SINGLE_MAP = 1u << 0;
constexpr u32 FEATURE_NO_DROP = 1u << 1;
/** Linux 5.7; whoever has it has plain reads and writes (5.6) and polls. */
constexpr u32 FEATURE_FAST_POLL = 1u << 5;

constexpr u32 ENTER_GET_EVENTS = 1u << 0;

constexpr long OFFSET_RINGS = 0;
constexpr long OFFSET_ENTRIES = 0x10000000;

enum class Opcode : u8 { pollAdd = 6, read = 22, write = 23 };

/** struct io_uring_sqe */
struct Submission {
  u8 opcode;
  u8 flags;
  u16 priority;
  std::int32_t fd;
  u64 offset;
  u64 address;
  u32 length;
  u32 operationFlags; // of a poll: the events, as poll(2) has them
  u64 userData;
  u64 unused[3];
};
static_assert(sizeof(Submission) == 64);

/** struct io_uring_cqe */
struct Completion {
  u64 userData;
  std::int32_t result;
  u32 flags;
};
static_assert(sizeof(Completion) == 16);

struct SubmissionOffsets {
  u32 head, tail, mask, entries, flags, dropped, array, reserved;
  u64 userAddress;
};

struct CompletionOffsets {
  u32 head, tail, mask, entries, overflow, completions, flags, reserved;
  u64 userAddress;
};

/** struct io_uring_params */
struct Parameters {
  u32 submissions;
  u32 completions;
  u32 flags;
  u32 threadCpu;
  u32 threadIdle;
  u32 features;
  u32 workerFd;
  u32 reserved[3];
  SubmissionOffsets submissionOffsets;
  CompletionOffsets completionOffsets;
};
static_assert(sizeof(Parameters) == 120);

} // namespace mooncake::file::uring
