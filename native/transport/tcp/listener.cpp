#include "transport/tcp/listener.h"

#include "transport/tcp/own_server.h"
#include "transport/tcp/pulse.h"
#include "transport/tcp/stock_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

namespace mooncake::tcp {

namespace {

constexpr u32 MAX_CONNECTIONS = 4096;
/** Accepted in one go. */
constexpr int MAX_ACCEPTED = 64;

/** Strangers get at most half of the descriptors that this process may have. */
u32 connectionLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return MAX_CONNECTIONS;
  return static_cast<u32>(std::min<rlim_t>(limit.rlim_cur / 2, MAX_CONNECTIONS));
}

}  // namespace

Listener::Listener(const Loops& loops, std::shared_ptr<const Served> served, Fd fd)
    : loops_(loops), served_(std::move(served)), fd_(std::move(fd)), seats_(connectionLimit()) {}

std::shared_ptr<void> Listener::takeSeat() {
  if (taken_->load() >= seats_) return nullptr;
  taken_->fetch_add(1);
  return {taken_.get(), [taken = taken_](void*) { taken->fetch_sub(1); }};
}

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
  for (int accepted = 0; accepted < MAX_ACCEPTED; accepted++) {
    Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      paused_ = true;
      return loops_[0]->change(name_, fd_.get(), 0);
    }
    std::shared_ptr<void> seat = takeSeat();
    if (!seat) continue;
    tune(fd, STOCK_SILENCE_MS);
    const std::shared_ptr<Loop> loop = loops_[next_++ % loops_.size()];
    auto newcomer = std::make_shared<Newcomer>(*loop, served_, std::move(fd));
    loop->run([newcomer = std::move(newcomer), seat = std::move(seat)] { Service::start(newcomer, seat, nullptr, 0); });
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
        service = std::make_shared<OwnServer>(loop(), served_->memory, served_->generation, served_->clients, handOver());
        break;
      case Opening::handshake:
        service = std::make_shared<HandshakeServer>(loop(), served_->handshake, handOver());
        break;
      case Opening::data: service = std::make_shared<StockServer>(loop(), served_->memory, handOver()); break;
      case Opening::unknown:
      case Opening::more: return close();
    }
    return Service::start(service, seat(), bytes_.data(), length_);
  }
}

bool Newcomer::tick() {
  if (open() && age() >= GREETING_MS) close();
  return false;
}

}  // namespace mooncake::tcp
