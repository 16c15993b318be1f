// What is to be sent on a stream: items of a head, data that stays where it is, and a tail that carries the data's
// checksum. Several go out in one system call; data is summed just before it is sent, so that sending finds it in the
// cache. No thread of its own and no lock: whoever owns it serialises.
#pragma once

#include "memory/segment.h"
#include "transport/tcp/frames.h"

#include <sys/uio.h>

#include <deque>
#include <vector>

namespace mooncake::tcp {

struct Item {
  /** Sent first, a copy of its own. */
  std::vector<u8> head;
  std::vector<iovec> data;
  u64 bytes = 0;
  bool summed = false;
  /** Sent after the data where `tailed`; its sum and flag are filled in. */
  bool tailed = false;
  Frame tail;
  /** Keeps data where it is. */
  std::vector<SegmentRef> holds;
  /** The owner's: the request that this item belongs to. */
  u32 request = 0;

  void add(u8* address, u64 length);
  /** Zeroes take the place of what was not sent yet, and the tail says so: the memory is not touched any more. */
  void substitute();
  bool begun() const { return sent_ > 0; }

 private:
  friend class Output;
  std::vector<u8> tailBytes_;
  /** Of head, data and tail together. */
  u64 sent_ = 0;
  u64 sum_ = 0;
  u64 summedBytes_ = 0;
  /** Of the next data to sum or send. */
  size_t piece_ = 0;
  u64 offset_ = 0;
};

class Output {
 public:
  enum class Flushed : u8 { all, some, blocked, failed };

  void push(Item item) { items_.push_back(std::move(item)); }
  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  std::deque<Item>& items() { return items_; }

  /** Sends until nothing is left, the socket takes no more, or `budget` bytes are sent (`some`). `sent` is called with each
      item that has gone out whole. `failed` leaves errno. */
  template <class Sent>
  Flushed flush(int fd, u64 budget, Sent&& sent) {
    while (!items_.empty()) {
      const ssize_t count = sendOnce(fd);
      if (count < 0) return count == WOULD_BLOCK ? Flushed::blocked : Flushed::failed;
      u64 left = static_cast<u64>(count);
      sentBytes_ += left;
      while (!items_.empty() && advance(items_.front(), left)) {
        sent(items_.front());
        items_.pop_front();
      }
      if (static_cast<u64>(count) >= budget) return items_.empty() ? Flushed::all : Flushed::some;
      budget -= static_cast<u64>(count);
    }
    return Flushed::all;
  }
  /** Of all flushes. */
  u64 sentBytes() const { return sentBytes_; }
  void clear() { items_.clear(); }

 private:
  static constexpr ssize_t WOULD_BLOCK = -2;

  ssize_t sendOnce(int fd);
  /** Takes of `left` what this item has sent; true: all of it. */
  static bool advance(Item& item, u64& left);

  std::deque<Item> items_;
  u64 sentBytes_ = 0;
};

}  // namespace mooncake::tcp
