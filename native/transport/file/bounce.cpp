#include "transport/file/runner.h"

#include <cerrno>
#include <sys/mman.h>
#include <utility>

namespace mooncake::file {

Expected<BounceBuffers> BounceBuffers::allocate(u32 count) {
  BounceBuffers buffers;
  buffers.length_ = count * BOUNCE_BYTES;
  void* mapped = mmap(nullptr, buffers.length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return systemError("mmap of bounce buffers", errno, Code::outOfMemory);
  buffers.base_ = static_cast<u8*>(mapped);
  return buffers;
}

BounceBuffers::BounceBuffers(BounceBuffers&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), length_(std::exchange(other.length_, 0)) {}

BounceBuffers& BounceBuffers::operator=(BounceBuffers&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(length_, other.length_);
  return *this;
}

BounceBuffers::~BounceBuffers() {
  if (base_) munmap(base_, length_);
}

} // namespace mooncake::file
