#include "service/control_socket.h"

#include "transport/shm/unix_socket.h"

#include <fcntl.h>
#include <poll.h>

#include <cerrno>

namespace mooncake::service {

namespace {

/** What a call without waiting has done: nothing where it would have to wait. */
Expected<size_t> moved(ssize_t count, const char* what) {
  if (count >= 0) return static_cast<size_t>(count);
  if (errno == EAGAIN || errno == EWOULDBLOCK) return size_t{0};
  return systemError(what, errno, Code::peer);
}

}  // namespace

Expected<ControlSocket> ControlSocket::connect(const std::string& path) {
  const Expected<sockaddr_un> address = shm::unixAddress(path);
  if (!address.ok()) return address.status;
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return systemError("socket", errno);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.value), sizeof address.value) != 0) {
    return systemError("connect " + path, errno, Code::peer);
  }
  return ControlSocket(std::move(socket));
}

Expected<size_t> ControlSocket::send(std::span<const u8> bytes) {
  ssize_t sent;
  do {
    sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return moved(sent, "send");
}

Expected<size_t> ControlSocket::receive(std::span<u8> into) {
  ssize_t received;
  do {
    received = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received == 0 && !into.empty()) return Status(Code::closed, "the peer has ended its side");
  return moved(received, "recv");
}

bool ControlSocket::wait(bool toSend, std::chrono::milliseconds timeout) const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + timeout;
  pollfd polled{socket_.get(), static_cast<short>(toSend ? POLLIN | POLLOUT : POLLIN), 0};
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    const int ready = ::poll(&polled, 1, left.count() > 0 ? static_cast<int>(left.count()) : 0);
    // What poll cannot look at, the next call on it says.
    if (ready >= 0 || errno != EINTR) return ready != 0;
  }
}

Expected<int> ControlSocket::duplicate() const {
  const int copy = ::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return systemError("F_DUPFD_CLOEXEC", errno);
  return copy;
}

}  // namespace mooncake::service
