// Owns a file descriptor until it is released.
#pragma once

#include <unistd.h>

#include <utility>

namespace mooncake {

class Descriptor {
public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  bool empty() const { return fd_ < 0; }
  int release() { return std::exchange(fd_, -1); }

private:
  int fd_;
};

} // namespace mooncake
