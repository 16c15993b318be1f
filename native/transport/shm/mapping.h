// Memory that two processes share: a peer's segment mapped into this one, and the ring through which bytes are staged.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"

namespace mooncake::shm {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept { *this = std::move(other); }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping() { reset(); }

  /** Maps [offset, offset + length) of a memfd. Refuses one that is shorter, or that its owner could still shrink (its
      seals say): an access past the end would end this process. */
  static Expected<Mapping> open(int fd, u64 offset, u64 length, bool writable);

  /** A new memfd that nobody can shrink, and its mapping. */
  static Expected<Mapping> create(u64 length, Fd& fd);

  u8* data() const { return data_; }
  u64 length() const { return length_; }
  explicit operator bool() const { return data_ != nullptr; }
  void reset();

 private:
  u8* data_ = nullptr;
  u64 length_ = 0;
  /** What was mapped, from the page's start to the page's end. */
  u8* base_ = nullptr;
  u64 mapped_ = 0;
};

}  // namespace mooncake::shm
