#include "transport/tcp/output.h"

#include "checksum/crc64.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace mooncake::tcp {

namespace {

constexpr size_t MAX_BUFFERS = 256;
/** Of one system call: few enough to be in the second-level cache when they are copied after they were summed. */
constexpr u64 LIMIT = 256 << 10;

constexpr u64 ZEROES = 64 << 10;
u8 zeroes[ZEROES];

}  // namespace

void Item::add(u8* address, u64 length) {
  bytes += length;
  if (!data.empty() && static_cast<u8*>(data.back().iov_base) + data.back().iov_len == address) {
    data.back().iov_len += length;
  } else {
    data.push_back({address, length});
  }
}

void Item::substitute() {
  u64 left = bytes - (sent_ > head.size() ? std::min(sent_ - head.size(), bytes) : 0);
  if (left == 0) return;
  // It may have been made already, for a system call that did not take all.
  tailBytes_.clear();
  data.clear();
  piece_ = 0;
  offset_ = 0;
  for (u64 length = 0; left > 0; left -= length) {
    length = std::min(left, ZEROES);
    data.push_back({zeroes, length});
  }
  summed = false;
  tail.code = Code::aborted;
}

ssize_t Output::sendOnce(int fd) {
  std::array<iovec, MAX_BUFFERS> buffers;
  size_t count = 0;
  u64 room = LIMIT;
  for (Item& item : items_) {
    if (count + 3 > MAX_BUFFERS || room == 0) break;
    const u64 headLeft = item.head.size() - std::min<u64>(item.sent_, item.head.size());
    if (headLeft > 0) {
      buffers[count++] = {item.head.data() + (item.head.size() - headLeft), headLeft};
      room -= std::min(room, headLeft);
    }
    const u64 dataSent = std::min(item.sent_ - (item.head.size() - headLeft), item.bytes);
    u64 at = dataSent;
    u64 offset = item.offset_;
    for (size_t i = item.piece_; at < item.bytes && room > 0 && count + 1 < MAX_BUFFERS; i++, offset = 0) {
      u8* const from = static_cast<u8*>(item.data[i].iov_base) + offset;
      const u64 length = std::min<u64>(item.data[i].iov_len - offset, room);
      if (item.summed && at + length > item.summedBytes_) {
        const u64 known = std::max(item.summedBytes_, at) - at;
        item.sum_ = crc64(from + known, length - known, item.sum_);
        item.summedBytes_ = at + length;
      }
      buffers[count++] = {from, length};
      at += length;
      room -= length;
    }
    if (at < item.bytes) break;
    if (!item.tailed) continue;
    if (item.tailBytes_.empty()) {
      item.tail.summed = item.summed;
      item.tail.sum = item.summed ? item.sum_ : 0;
      item.tailBytes_.resize(FRAME_BYTES);
      writeFrame(item.tailBytes_.data(), item.tail);
    }
    const u64 tailSent = item.sent_ - std::min(item.sent_, item.head.size() + item.bytes);
    buffers[count++] = {item.tailBytes_.data() + tailSent, FRAME_BYTES - tailSent};
  }
  msghdr message{};
  message.msg_iov = buffers.data();
  message.msg_iovlen = count;
  const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EINTR ? WOULD_BLOCK : -1;
}

bool Output::advance(Item& item, u64& left) {
  const u64 total = item.head.size() + item.bytes + (item.tailed ? FRAME_BYTES : 0);
  const u64 now = std::min(left, total - item.sent_);
  const u64 headLeft = item.head.size() - std::min<u64>(item.sent_, item.head.size());
  const u64 dataBefore = std::min(item.sent_ - (item.head.size() - headLeft), item.bytes);
  item.sent_ += now;
  left -= now;
  if (item.sent_ == total) return true;
  u64 data = item.sent_ > item.head.size() ? std::min(item.sent_ - item.head.size(), item.bytes) - dataBefore : 0;
  while (data > 0) {
    const u64 here = std::min<u64>(item.data[item.piece_].iov_len - item.offset_, data);
    item.offset_ += here;
    data -= here;
    if (item.offset_ == item.data[item.piece_].iov_len) {
      item.piece_++;
      item.offset_ = 0;
    }
  }
  return false;
}

}  // namespace mooncake::tcp
