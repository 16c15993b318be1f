#include "transport/shm/channel.h"

#include "transport/shm/unix_socket.h"

#include <cerrno>
#include <cstring>

namespace mooncake::shm {

namespace {

/** Messages that may wait: both sides bound what they have under way, so that more is a peer that does not read. */
constexpr size_t MAX_QUEUED = 8192;
/** Descriptors accepted of one message: more than one is refused, but must be closed. */
constexpr size_t MAX_DESCRIPTORS = 8;

Status gone(const char* call) { return systemError(std::string("shared memory: ") + call, errno, Code::peer); }

}  // namespace

Credentials Channel::credentials() const {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(fd(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return {0, static_cast<uid_t>(-1)};
  return {credentials.pid, credentials.uid};
}

Status Channel::send(const Message& message, Fd descriptor) {
  if (!socket_) return {Code::peer, "shared memory: the connection is closed"};
  Outgoing outgoing{encode(message), std::move(descriptor)};
  if (queue_.empty()) {
    const Expected<bool> sent = transmit(outgoing);
    if (!sent.ok() || sent.value) return sent.status;
  }
  if (queue_.size() >= MAX_QUEUED) return {Code::peer, "shared memory: the peer does not take messages"};
  queue_.push_back(std::move(outgoing));
  return {};
}

Status Channel::flush() {
  while (!queue_.empty()) {
    const Expected<bool> sent = transmit(queue_.front());
    if (!sent.ok() || !sent.value) return sent.status;
    queue_.pop_front();
  }
  return {};
}

Expected<bool> Channel::transmit(const Outgoing& outgoing) {
  iovec vector{const_cast<u8*>(outgoing.packet.data()), outgoing.packet.size()};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (outgoing.descriptor) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* const item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = outgoing.descriptor.get();
    std::memcpy(CMSG_DATA(item), &fd, sizeof fd);
  }
  for (;;) {
    if (::sendmsg(fd(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
    if (errno == EINTR) continue;
    // ETOOMANYREFS: descriptors in flight are limited; they arrive when the peer reads.
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ETOOMANYREFS) return false;
    return gone("send");
  }
}

Channel::Got Channel::receive(Message& message, Fd& descriptor, Status& why) {
  buffer_.resize(MAX_MESSAGE_BYTES);
  iovec vector{buffer_.data(), buffer_.size()};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX_DESCRIPTORS)] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t length;
  // A peer that hangs up with something of ours unread resets the connection; that is told first, and once, and what it
  // had said before (why it refuses) is behind it.
  bool reset = false;
  do {
    length = ::recvmsg(fd(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (length < 0 && (errno == EINTR || (errno == ECONNRESET && !std::exchange(reset, true))));
  if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Got::nothing;
  if (length < 0) return Got::closed;

  // Also of a packet without bytes, which looks like the end of the connection: they are ours to close.
  std::vector<Fd> descriptors = receivedDescriptors(header);
  if (length == 0) return Got::closed;
  why = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0
            ? Status(Code::protocol, "shared memory: a message that is too large, or a descriptor that got lost")
            : decode(buffer_.data(), static_cast<size_t>(length), message);
  if (!why.ok()) return Got::bad;
  const bool mayCarry = message.type == MessageType::grant || message.type == MessageType::ring;
  if (descriptors.size() > (mayCarry ? 1 : 0)) {
    why = {Code::protocol, "shared memory: descriptors with a message that has none"};
    return Got::bad;
  }
  descriptor = descriptors.empty() ? Fd() : std::move(descriptors[0]);
  return Got::message;
}

void Channel::close() {
  queue_.clear();
  socket_.reset();
}

Expected<Fd> connectTo(const std::string& path) {
  const Expected<sockaddr_un> address = unixAddress(path);
  if (!address.ok()) return address.status;
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return systemError("socket", errno);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.value), sizeof address.value) != 0) {
    const Code code = errno == EAGAIN ? Code::queueFull : errno == ECONNREFUSED ? Code::closed : Code::peer;
    return systemError("connect " + path, errno, code);
  }
  return socket;
}

}  // namespace mooncake::shm
