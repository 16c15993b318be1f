#include "transport/tcp/input.h"

#include "checksum/copy.h"
#include "checksum/crc64.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace mooncake::tcp {

namespace {

constexpr size_t MAX_BUFFERS = 256;

/** Bytes of a request that are worth two copies, the second past the caches. */
constexpr u64 BOUNCED_BYTES = 256 << 10;
/** Pieces of it that are. */
constexpr u64 STREAMED_BYTES = 4 << 10;
constexpr u64 LINE = 64;

/** What large data goes through, and where dropped bytes end; Input::CAPACITY bytes. One for each thread, as no data is left
    there between two calls. */
u8* area() {
  struct alignas(LINE) Area {
    u8 bytes[Input::CAPACITY];
  };
  static thread_local const std::unique_ptr<Area> own(new Area);
  return own->bytes;
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
  bounces_ = STREAMING && bytes >= BOUNCED_BYTES;
}

void Target::clear() {
  memory_.clear();
  begin(0, false);
}

size_t Target::buffers(iovec* out, size_t max) {
  if (left_ == 0) return 0;
  if (dropping_) {
    out[0] = {area(), std::min<u64>(left_, Input::CAPACITY)};
    return 1;
  }
  if (bounces_) {
    // The next read begins with a line of memory: only whole ones go past the caches.
    const u64 odd = (reinterpret_cast<u64>(memory_[at_].iov_base) + offset_) % LINE;
    out[0] = {area(), std::min<u64>(left_, Input::CAPACITY - odd)};
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
  if (bounces_ || dropping_) return take(area(), length);
  landedInPlace(length);
}

void Target::landedInPlace(u64 length) {
  left_ -= length;
  while (length > 0) {
    const iovec& piece = memory_[at_];
    const u64 here = std::min<u64>(piece.iov_len - offset_, length);
    if (summed_) sum_ = crc64(static_cast<const u8*>(piece.iov_base) + offset_, here, sum_);
    advance(here);
    length -= here;
  }
}

void Target::advance(u64 length) {
  offset_ += length;
  if (offset_ < memory_[at_].iov_len) return;
  at_++;
  offset_ = 0;
}

void Target::take(const u8* bytes, u64 length) {
  left_ -= length;
  if (dropping_) return;
  while (length > 0) {
    const iovec& piece = memory_[at_];
    const u64 here = std::min<u64>(piece.iov_len - offset_, length);
    u8* const to = static_cast<u8*>(piece.iov_base) + offset_;
    const Store store = bounces_ && here >= STREAMED_BYTES ? Store::streaming : Store::cached;
    if (summed_) sum_ = copyCrc64(to, bytes, here, sum_, store);
    else copyBytes(to, bytes, here, store);
    advance(here);
    bytes += here;
    length -= here;
  }
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
