#include "transport/tcp/handshake_server.h"

#include "transport/tcp/bytes.h"

#include <array>
#include <cerrno>

namespace mooncake::tcp {

void HandshakeServer::begin(const u8* opening, size_t length) {
  received_.assign(opening, opening + length);
  receive();
}

void HandshakeServer::ready(u32 events) {
  if (phase_ == Phase::reply && (events & EPOLLOUT)) send();
  if (open() && (events & ~EPOLLOUT)) receive();
}

void HandshakeServer::receive() {
  std::array<u8, 16 << 10> piece;
  for (int turn = 0;; turn++) {
    if (phase_ == Phase::request && received_.size() >= 8) {
      const u64 length = get<u64>(received_.data());
      if (length == 0 || length > MAX_HANDSHAKE_BYTES) return close();
      if (received_.size() >= 8 + length) ask();
      if (!open()) return;
    }
    if (turn == MAX_TURNS) return;
    const ssize_t got = ::recv(fd(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0 || (got == 0 && phase_ != Phase::waiting && phase_ != Phase::reply)) return close();
    // The peer has said all and waits for the answer; its end would be reported over and over.
    if (got == 0) return await(phase_ == Phase::reply ? u32{EPOLLOUT} : 0);
    // What follows the frame is of no use to anybody.
    if (phase_ == Phase::request) received_.insert(received_.end(), piece.begin(), piece.begin() + got);
  }
}

void HandshakeServer::ask() {
  if (!handler_ || !readHandshake(received_.data() + 8, get<u64>(received_.data()), handshake_).ok()) return close();
  phase_ = Phase::waiting;
  handler_(handshake_.type, std::move(handshake_.json),
           [weak = weak_from_this(), loop = loop().shared_from_this()](std::string json) {
             const std::shared_ptr<HandshakeServer> self = weak.lock();
             if (!self) return;
             loop->run([self, text = std::move(json)]() mutable {
               if (!self->open() || self->phase_ != Phase::waiting) return;
               if (text.empty()) return self->close();
               self->reply_ = handshakeFrame({self->handshake_.type, self->handshake_.typed, std::move(text)});
               self->phase_ = Phase::reply;
               self->send();
             });
           });
}

void HandshakeServer::send() {
  while (sent_ < reply_.size()) {
    const ssize_t count = ::send(fd(), reply_.data() + sent_, reply_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return await(EPOLLIN | EPOLLOUT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return close();
    sent_ += static_cast<size_t>(count);
  }
  phase_ = Phase::ending;
  ::shutdown(fd(), SHUT_WR);
  await(EPOLLIN);
}

bool HandshakeServer::tick() {
  if (open() && age() >= LIMIT_MS) close();
  return false;
}

}  // namespace mooncake::tcp
