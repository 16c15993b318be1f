#include "transport/tcp/listener.h"

#include "transport/tcp/own_server.h"
#include "transport/tcp/pulse.h"
#include "transport/tcp/stock_server.h"

#include <cerrno>

namespace mooncake::tcp {

void Listener::start(const std::shared_ptr<Listener>& listener) {
  Loop& loop = *listener->loops_[0];
  loop.runAndWait([&] { listener->name_ = loop.add(listener, listener->fd_.get(), EPOLLIN); });
}

void Listener::stop() {
  Loop& loop = *loops_[0];
  loop.runAndWait([&] {
    if (!fd_) return;
    loop.forget(fd_.get());
    fd_.reset();
    // The loop has the last pointer to this.
    loop.remove(name_);
  });
}

void Listener::ready(u32) {
  for (;;) {
    Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      paused_ = true;
      return loops_[0]->change(name_, fd_.get(), 0);
    }
    tune(fd, STOCK_SILENCE_MS);
    const std::shared_ptr<Loop> loop = loops_[next_++ % loops_.size()];
    auto newcomer = std::make_shared<Newcomer>(*loop, served_, std::move(fd));
    loop->run([newcomer = std::move(newcomer)] { Service::start(newcomer, nullptr, 0); });
  }
}

bool Listener::tick() {
  if (paused_) {
    paused_ = false;
    loops_[0]->change(name_, fd_.get(), EPOLLIN);
  }
  return false;
}

void Newcomer::ready(u32) {
  while (length_ < bytes_.size()) {
    const ssize_t count = ::recv(fd(), bytes_.data() + length_, bytes_.size() - length_, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) return close();
    length_ += static_cast<size_t>(count);
    const Opening opening = classify(bytes_.data(), length_);
    if (opening == Opening::more) continue;
    std::shared_ptr<Service> service;
    switch (opening) {
      case Opening::own:
        service = std::make_shared<OwnServer>(loop(), served_->memory, served_->generation, handOver());
        break;
      case Opening::handshake:
        service = std::make_shared<HandshakeServer>(loop(), served_->handshake, handOver());
        break;
      case Opening::data: service = std::make_shared<StockServer>(loop(), served_->memory, handOver()); break;
      case Opening::unknown:
      case Opening::more: return close();
    }
    return Service::start(service, bytes_.data(), length_);
  }
}

bool Newcomer::tick() {
  if (open() && age() >= GREETING_MS) close();
  return false;
}

}  // namespace mooncake::tcp
