#include "transport/tcp/socket.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mooncake::tcp {

namespace {

/** The kernel doubles it. What is on its way then stays in a second-level cache until the receiver takes it, who runs as soon
    as the sender waits: three times what buffers give that grow as they do for a network. */
constexpr int LOOPBACK_SEND_BYTES = 128 << 10;

void option(const Fd& fd, int level, int name, int value) { ::setsockopt(fd.get(), level, name, &value, sizeof value); }

/** Whether both ends are on this machine: they have the same address. */
bool isLoopback(const Fd& fd) {
  Address here;
  Address there;
  here.length = there.length = sizeof here.storage;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&here.storage), &here.length) != 0) return false;
  if (::getpeername(fd.get(), reinterpret_cast<sockaddr*>(&there.storage), &there.length) != 0) return false;
  if (here.storage.ss_family != there.storage.ss_family) return false;
  if (here.storage.ss_family == AF_INET6) {
    const auto& a = reinterpret_cast<const sockaddr_in6&>(here.storage);
    const auto& b = reinterpret_cast<const sockaddr_in6&>(there.storage);
    return std::memcmp(&a.sin6_addr, &b.sin6_addr, sizeof a.sin6_addr) == 0;
  }
  return reinterpret_cast<const sockaddr_in&>(here.storage).sin_addr.s_addr ==
         reinterpret_cast<const sockaddr_in&>(there.storage).sin_addr.s_addr;
}

}  // namespace

u16 Address::port() const {
  if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

std::string formatPlace(const std::string& host, const std::string& port) {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

bool parsePort(const std::string& text, bool zero, u16& port) {
  if (text.empty() || text.size() > 5) return false;
  u32 value = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return false;
    value = value * 10 + static_cast<u32>(digit - '0');
  }
  if (value > 65535 || (value == 0 && !zero)) return false;
  port = static_cast<u16>(value);
  return true;
}

Expected<std::vector<Address>> resolve(const std::string& host, const std::string& port, bool numeric) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Status{Code::peer, "host " + host + ": " + ::gai_strerror(error)};
  }
  std::vector<Address> addresses;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Address& address = addresses.emplace_back();
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.length = at->ai_addrlen;
  }
  ::freeaddrinfo(found);
  return addresses;
}

Expected<Fd> startConnect(const Address& address) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return systemError("socket", errno);
  if (::connect(fd.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    return systemError("connect", errno, Code::peer);
  }
  return fd;
}

int connectError(const Fd& fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 ? errno : error;
}

Expected<Fd> listenOn(const Address& address) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return systemError("socket", errno);
  // A restarted server takes its port back while connections of the old one linger.
  option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), address.get(), address.length) != 0) return systemError("bind", errno);
  if (::listen(fd.get(), 512) != 0) return systemError("listen", errno);
  return fd;
}

Expected<Address> localAddress(const Fd& fd) {
  Address address;
  address.length = sizeof address.storage;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    return systemError("getsockname", errno);
  }
  return address;
}

void tune(const Fd& fd, u32 silenceMs) {
  option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(silenceMs));
  if (isLoopback(fd)) option(fd, SOL_SOCKET, SO_SNDBUF, LOOPBACK_SEND_BYTES);
}

}  // namespace mooncake::tcp
