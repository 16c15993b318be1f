// What a connection that came in to the listener becomes.
#pragma once

#include "transport/tcp/loop.h"

#include <sys/epoll.h>

namespace mooncake::tcp {

/** All on the loop's thread. */
class Service : public Watched {
 public:
  Service(Loop& loop, Fd fd) : loop_(loop), fd_(std::move(fd)) {}

  /** Registers a service with its loop, which owns it from then on. `seat` goes when the service does. `opening`: what was
      read already. */
  static void start(const std::shared_ptr<Service>& service, std::shared_ptr<void> seat, const u8* opening, size_t length) {
    service->seat_ = std::move(seat);
    service->began_ = service->loop_.now();
    service->name_ = service->loop_.add(service, service->fd_.get(), EPOLLIN);
    service->begin(opening, length);
  }

 protected:
  virtual void begin(const u8* opening, size_t length) = 0;

  /** Ends the connection; the loop lets go of the service when the current call returns. */
  void close() {
    if (!fd_) return;
    loop_.forget(fd_.get());
    fd_.reset();
    loop_.remove(name_);
  }
  bool open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  void await(u32 events) {
    if (events != awaited_) loop_.change(name_, fd_.get(), events);
    awaited_ = events;
  }
  /** Of the loop's clock. */
  u64 now() const { return loop_.now(); }
  u64 age() const { return now() - began_; }
  Loop& loop() { return loop_; }
  const std::shared_ptr<void>& seat() const { return seat_; }
  /** The socket for somebody else; this service has ended. */
  Fd handOver() {
    loop_.forget(fd_.get());
    loop_.remove(name_);
    return std::move(fd_);
  }

 private:
  Loop& loop_;
  Fd fd_;
  u64 name_ = 0;
  u32 awaited_ = EPOLLIN;
  u64 began_ = 0;
  std::shared_ptr<void> seat_;
};

}  // namespace mooncake::tcp
