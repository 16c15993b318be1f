// What arrives on a stream: headers are gathered in a small staging area. Small data goes from the socket straight to where it
// belongs, and is summed while it is in the cache. Large data goes through an area that stays in the cache, and is summed on
// the way from there to memory, past the caches: what the kernel writes itself costs reading the lines first. One system call takes
// the rest of the data and what follows it.
#pragma once

#include "engine/status.h"

#include <sys/uio.h>

#include <memory>
#include <vector>

namespace mooncake::tcp {

/** Memory in which data of known length lands, or nowhere: then it is read and dropped. */
class Target {
 public:
  Target() = default;
  /** Adds memory after what there is; neighbours become one. */
  void add(u8* address, u64 length);
  /** `bytes` is the sum of what was added, or any number where nothing was (all is dropped). */
  void begin(u64 bytes, bool summed);
  void clear();

  u64 left() const { return left_; }
  u64 sum() const { return sum_; }
  bool summed() const { return summed_; }

  /** Nothing of ours is written from here on; the rest still arrives. */
  void drop() { dropping_ = true; }
  bool dropping() const { return dropping_; }

  /** Bytes that were read elsewhere: they are copied. */
  void take(const u8* bytes, u64 length);
  /** Up to `max` buffers for what comes next, of LIMIT bytes together at most. */
  size_t buffers(iovec* out, size_t max);
  /** So many bytes have landed in them. */
  void landed(u64 length);

 private:
  /** Bytes of one read that go straight to their memory: few enough to be summed while they are in the second-level cache. */
  static constexpr u64 LIMIT = 256 << 10;

  void landedInPlace(u64 length);
  /** Past bytes of the current piece. */
  void advance(u64 length);

  std::vector<iovec> memory_;
  size_t at_ = 0;
  u64 offset_ = 0;
  u64 left_ = 0;
  u64 sum_ = 0;
  bool summed_ = false;
  bool dropping_ = false;
  /** Comes by way of the thread's area. */
  bool bounces_ = false;
};

enum class Filled : u8 { some, later, ended, failed };

class Input {
 public:
  Input();

  /** Reads once: into the target first, if one is given and wants data, and into the staging area. `failed` leaves errno. */
  Filled fill(int fd, Target* target);
  /** As if these bytes had been read: of a connection that somebody looked at before. At most CAPACITY - pending. */
  void feed(const u8* bytes, size_t length);

  /** Bytes in the staging area, not taken yet. */
  size_t pending() const { return end_ - begin_; }
  const u8* peek() const { return staging_.get() + begin_; }
  void skip(size_t length) { begin_ += length; }
  /** Gives the target what of its data lies in the staging area. */
  void drain(Target& target);

  /** Makes room for a unit of so many bytes that is to be seen whole. */
  void expect(size_t length);

  static constexpr size_t CAPACITY = 64 << 10;

 private:
  std::unique_ptr<u8[]> staging_;
  size_t capacity_ = CAPACITY;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace mooncake::tcp
