#include "service/descriptor_socket.h"

#include "transport/shm/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace mooncake::service {

namespace {

struct Packet {
  Ticket ticket;
  u64 length;
  /** Left out where it is a memfd, as services and engines had it that knew nothing else. */
  Handed kind;
};
static_assert(sizeof(Packet) == 32);
constexpr size_t SHORT_PACKET = offsetof(Packet, kind);

/** What an answer says beside its text; any other number is a refusal. */
constexpr u32 TAKEN = 0;
constexpr u32 REFUSED = 1;
constexpr size_t MAX_TEXT = 512;
/** Descriptors accepted of one packet: more than one is refused, but must be closed. */
constexpr size_t MAX_DESCRIPTORS = 8;

Status checkMemory(int fd, u64 length, Handed kind) {
  // What the driver says of it when it is opened is all that can be known.
  if (kind == Handed::allocation && length > 0) return {};
  if (kind != Handed::memory) return {Code::protocol, "a descriptor of an unknown kind, or of nothing"};
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return systemError("the descriptor is no memfd", errno);
  if ((seals & F_SEAL_SHRINK) == 0) return {Code::notSupported, "the memfd is not sealed against shrinking (F_SEAL_SHRINK)"};
  struct stat status{};
  if (::fstat(fd, &status) != 0) return systemError("fstat", errno);
  if (length > 0 && length <= static_cast<u64>(status.st_size)) return {};
  return {Code::protocol, "a memfd of " + std::to_string(status.st_size) + " bytes, announced with " + std::to_string(length)};
}

/** A packet and what came along with it; -1 where the connection has ended, 0 where there is nothing now. */
ssize_t receivePacket(int socket, void* data, size_t size, std::vector<Fd>& descriptors, bool& cut) {
  iovec vector{data, size};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX_DESCRIPTORS)] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t length;
  do {
    length = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
  descriptors = shm::receivedDescriptors(header);
  cut = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  // An empty packet looks like the end of the connection, and nobody of ours sends one.
  return length == 0 ? -1 : length;
}

}  // namespace

Expected<Peer> peerOf(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return systemError("SO_PEERCRED", errno);
  return Peer{credentials.pid, credentials.uid};
}

Expected<std::unique_ptr<DescriptorSocket>> DescriptorSocket::listen(const std::string& path, const Limits& limits) {
  const Expected<sockaddr_un> address = shm::unixAddress(path);
  if (!address.ok()) return address.status;
  Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener) return systemError("socket", errno);
  // The file gets the mode that its socket has before it is bound: nobody else ever sees it open.
  if (::fchmod(listener.get(), 0600) != 0) return systemError("fchmod", errno);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.value), sizeof address.value) != 0) {
    return systemError("bind " + path, errno);
  }
  std::unique_ptr<DescriptorSocket> made(new DescriptorSocket(path, limits));
  made->listener_ = std::move(listener);
  made->wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!made->wake_) return systemError("eventfd", errno);
  if (::listen(made->listener_.get(), 128) != 0) return systemError("listen " + path, errno);
  made->thread_ = std::thread([self = made.get()] { self->run(); });
  return made;
}

void DescriptorSocket::close() {
  if (!listener_) return;
  if (thread_.joinable()) {
    const u64 one = 1;
    static_cast<void>(!::write(wake_.get(), &one, sizeof one));
    thread_.join();
  }
  ::unlink(path_.c_str());
  listener_.reset();
  const std::lock_guard lock(mutex_);
  waiting_.clear();
}

Expected<Fd> DescriptorSocket::take(const Ticket& ticket, pid_t pid, Handed kind) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(ticket);
  // Another's ticket is as good as none: who guesses one learns nothing.
  if (found == waiting_.end() || found->second.pid != pid || found->second.kind != kind || Clock::now() - found->second.since > limits_.patience) {
    return Status(Code::segment, "no descriptor waits under this ticket (used, expired, or never handed over)");
  }
  Fd fd = std::move(found->second.fd);
  waiting_.erase(found);
  return fd;
}

size_t DescriptorSocket::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

void DescriptorSocket::run() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign({{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
    for (const Connection& connection : connections_) polled.push_back({connection.socket.get(), POLLIN, 0});
    const bool idle = connections_.empty() && waiting() == 0;
    const int ready = ::poll(polled.data(), polled.size(), idle ? -1 : static_cast<int>(limits_.patience.count() / 4 + 1));
    if (ready < 0 && errno != EINTR) break;
    if (ready > 0) {
      if (polled[0].revents != 0) break;
      // Connections first: `accept` adds to them.
      for (size_t i = connections_.size(); i-- > 0;) {
        if (polled[i + 2].revents != 0 && !receive(connections_[i])) connections_.erase(connections_.begin() + static_cast<long>(i));
      }
      if (polled[1].revents != 0) accept();
    }
    expire();
  }
  connections_.clear();
}

void DescriptorSocket::accept() {
  for (;;) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      // Whoever knocks while there is no descriptor left for him would be heard again at once, and again.
      if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return;
    }
    const Expected<Peer> peer = peerOf(socket.get());
    if (!peer.ok() || (peer.value.uid != ::geteuid() && peer.value.uid != 0)) continue;
    // Who has been silent longest makes room.
    if (connections_.size() >= limits_.connections) {
      connections_.erase(std::min_element(connections_.begin(), connections_.end(),
                                          [](const Connection& a, const Connection& b) { return a.heard < b.heard; }));
    }
    connections_.push_back({std::move(socket), peer.value.pid, Clock::now()});
  }
}

bool DescriptorSocket::receive(Connection& connection) {
  for (;;) {
    Packet packet{};
    std::vector<Fd> descriptors;
    bool cut = false;
    const ssize_t length = receivePacket(connection.socket.get(), &packet, sizeof packet, descriptors, cut);
    if (length <= 0) return length == 0;
    connection.heard = Clock::now();
    Status status;
    if (cut || (length != SHORT_PACKET && length != sizeof packet) || descriptors.size() != 1) {
      status = {Code::protocol, "a packet is a ticket of 16 bytes, a length and a kind of 8, with one descriptor"};
    } else {
      status = keep(packet.ticket, packet.length, packet.kind, std::move(descriptors[0]), connection.pid);
    }
    const std::string text = status.detail.substr(0, MAX_TEXT);
    std::vector<u8> answer(sizeof(Ticket) + sizeof(u32) + text.size());
    const u32 code = status.ok() ? TAKEN : REFUSED;
    std::memcpy(answer.data(), packet.ticket.data(), sizeof(Ticket));
    std::memcpy(answer.data() + sizeof(Ticket), &code, sizeof code);
    std::memcpy(answer.data() + sizeof(Ticket) + sizeof code, text.data(), text.size());
    // Who does not take its answers is not worth waiting for.
    if (::send(connection.socket.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return false;
  }
}

Status DescriptorSocket::keep(const Ticket& ticket, u64 length, Handed kind, Fd fd, pid_t pid) {
  if (Status status = checkMemory(fd.get(), length, kind); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= limits_.tickets) {
    return {Code::queueFull, std::to_string(limits_.tickets) + " descriptors wait already for their tickets"};
  }
  if (!waiting_.try_emplace(ticket, Waiting{std::move(fd), kind, pid, Clock::now()}).second) {
    return {Code::protocol, "a descriptor waits already under this ticket"};
  }
  return {};
}

void DescriptorSocket::expire() {
  const Clock::time_point oldest = Clock::now() - limits_.patience;
  std::erase_if(connections_, [&](const Connection& connection) { return connection.heard < oldest; });
  const std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&](const auto& entry) { return entry.second.since < oldest; });
}

Status handOver(const std::string& path, const Ticket& ticket, u64 length, int fd, std::chrono::milliseconds timeout, Handed kind) {
  const Expected<sockaddr_un> address = shm::unixAddress(path);
  if (!address.ok()) return address.status;
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return systemError("socket", errno);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.value), sizeof address.value) != 0) {
    return systemError("connect " + path, errno, Code::peer);
  }
  Packet packet{ticket, length, kind};
  iovec vector{&packet, kind == Handed::memory ? SHORT_PACKET : sizeof packet};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* const item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(item), &fd, sizeof fd);
  if (::sendmsg(socket.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return systemError("send " + path, errno, Code::peer);
  pollfd polled{socket.get(), POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&polled, 1, static_cast<int>(timeout.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return {Code::timeout, path + " does not answer"};
  std::array<u8, sizeof(Ticket) + sizeof(u32) + MAX_TEXT> answer{};
  const ssize_t got = ::recv(socket.get(), answer.data(), answer.size(), MSG_DONTWAIT);
  if (got < static_cast<ssize_t>(sizeof(Ticket) + sizeof(u32))) return {Code::peer, path + " has hung up"};
  u32 code = REFUSED;
  std::memcpy(&code, answer.data() + sizeof(Ticket), sizeof code);
  if (code == TAKEN) return {};
  const size_t text = sizeof(Ticket) + sizeof(u32);
  return {Code::peer, std::string(reinterpret_cast<const char*>(answer.data()) + text, static_cast<size_t>(got) - text)};
}

}  // namespace mooncake::service
