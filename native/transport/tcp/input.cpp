#include "transport/tcp/input.h"

#include "checksum/crc64.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace mooncake::tcp {

namespace {

constexpr size_t MAX_BUFFERS = 256;

/** Where dropped bytes go. Threads write it at once, nobody reads it: one each, so that this is no race. */
u8* dropped() {
  static thread_local const std::unique_ptr<u8[]> area(new u8[Input::CAPACITY]);
  return area.get();
}

}  // namespace

void Target::add(u8* address, u64 length) {
  if (!memory_.empty() && static_cast<u8*>(memory_.back().iov_base) + memory_.back().iov_len == address) {
    memory_.back().iov_len += length;
  } else {
    memory_.push_back({address, length});
  }
}

void Target::begin(u64 bytes, bool summed) {
  at_ = 0;
  offset_ = 0;
  left_ = bytes;
  sum_ = 0;
  summed_ = summed;
  dropping_ = memory_.empty();
}

void Target::clear() {
  memory_.clear();
  begin(0, false);
}

size_t Target::buffers(iovec* out, size_t max) {
  if (left_ == 0) return 0;
  if (dropping_) {
    out[0] = {dropped(), std::min<u64>(left_, Input::CAPACITY)};
    return 1;
  }
  size_t count = 0;
  u64 room = LIMIT;
  u64 offset = offset_;
  for (size_t i = at_; i < memory_.size() && count < max && room > 0; i++, offset = 0) {
    const u64 length = std::min<u64>(memory_[i].iov_len - offset, room);
    out[count++] = {static_cast<u8*>(memory_[i].iov_base) + offset, length};
    room -= length;
  }
  return count;
}

void Target::landed(u64 length) {
  left_ -= length;
  if (dropping_) return;
  while (length > 0) {
    const iovec& piece = memory_[at_];
    const u64 here = std::min<u64>(piece.iov_len - offset_, length);
    if (summed_) sum_ = crc64(static_cast<const u8*>(piece.iov_base) + offset_, here, sum_);
    offset_ += here;
    length -= here;
    if (offset_ == piece.iov_len) {
      at_++;
      offset_ = 0;
    }
  }
}

void Target::take(const u8* bytes, u64 length) {
  if (!dropping_) {
    size_t at = at_;
    u64 offset = offset_;
    for (u64 done = 0; done < length; at++, offset = 0) {
      const u64 here = std::min<u64>(memory_[at].iov_len - offset, length - done);
      std::memcpy(static_cast<u8*>(memory_[at].iov_base) + offset, bytes + done, here);
      done += here;
    }
  }
  landed(length);
}

Input::Input() : staging_(new u8[CAPACITY]) {}

void Input::expect(size_t length) {
  if (begin_ + length <= capacity_) return;
  if (length > capacity_) {
    std::unique_ptr<u8[]> larger(new u8[length]);
    std::memcpy(larger.get(), peek(), pending());
    staging_ = std::move(larger);
    capacity_ = length;
  } else {
    std::memmove(staging_.get(), peek(), pending());
  }
  end_ -= begin_;
  begin_ = 0;
}

void Input::feed(const u8* bytes, size_t length) {
  expect(pending() + length);
  std::memcpy(staging_.get() + end_, bytes, length);
  end_ += length;
}

void Input::drain(Target& target) {
  const u64 length = std::min<u64>(pending(), target.left());
  target.take(peek(), length);
  skip(length);
}

Filled Input::fill(int fd, Target* target) {
  std::array<iovec, MAX_BUFFERS + 1> buffers;
  if (begin_ == end_) begin_ = end_ = 0;
  const u64 before = target != nullptr ? target->left() : 0;
  size_t count = target != nullptr ? target->buffers(buffers.data(), MAX_BUFFERS) : 0;
  u64 wanted = 0;
  for (size_t i = 0; i < count; i++) wanted += buffers[i].iov_len;
  // What follows the data only where all of the data is asked for.
  if (wanted == before && end_ < capacity_) buffers[count++] = {staging_.get() + end_, capacity_ - end_};
  const ssize_t read = ::readv(fd, buffers.data(), static_cast<int>(count));
  if (read == 0) return Filled::ended;
  if (read < 0) return errno == EAGAIN || errno == EINTR ? Filled::later : Filled::failed;
  const u64 direct = std::min<u64>(static_cast<u64>(read), wanted);
  if (direct > 0) target->landed(direct);
  end_ += static_cast<u64>(read) - direct;
  return Filled::some;
}

}  // namespace mooncake::tcp
