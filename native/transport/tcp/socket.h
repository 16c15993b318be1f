// Sockets as values: addresses from settings, connecting and listening without blocking.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <vector>

namespace mooncake::tcp {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  u16 port() const;
};

/** "192.0.2.2:4711", "[::1]:4711". */
std::string formatPlace(const std::string& host, const std::string& port);

/** A port in decimal digits; `zero`: 0 is one too. */
bool parsePort(const std::string& text, bool zero, u16& port);

/** Addresses of a host and a port, IPv4 and IPv6. With `numeric` only literals, which needs no lookup; otherwise it may
    block as long as the machine's resolver does. */
Expected<std::vector<Address>> resolve(const std::string& host, const std::string& port, bool numeric);

/** A connection under way: writable when it is made or has failed (see connectError). */
Expected<Fd> startConnect(const Address& address);
/** 0 or an errno. */
int connectError(const Fd& fd);

Expected<Fd> listenOn(const Address& address);
Expected<Address> localAddress(const Fd& fd);

/** Of a connected socket: no delays, the kernel's own look for dead peers, and buffers that fit where it leads. `silenceMs`: how
    long sent bytes may stay unacknowledged. */
void tune(const Fd& fd, u32 silenceMs);

}  // namespace mooncake::tcp
