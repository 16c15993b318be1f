// A client's end of a service's control socket, for callers that cannot return to their event loop before they have an answer:
// bytes go out and come in without waiting, and one wait with a deadline is for either. The event loop of the process reads
// the same socket by a descriptor of its own, between such calls.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"

#include <chrono>
#include <span>

namespace mooncake::service {

class ControlSocket {
 public:
  /** Connected to nobody. */
  ControlSocket() = default;

  /** peer: nobody listens at the path, or too many wait there. */
  static Expected<ControlSocket> connect(const std::string& path);

  /** Bytes that the kernel took: 0 where it has no room now. peer: the connection has ended. */
  Expected<size_t> send(std::span<const u8> bytes);
  /** Bytes that had come: 0 where there are none now. closed: the peer has ended its side; peer: the connection is broken. */
  Expected<size_t> receive(std::span<u8> into);
  /** Until there is something to receive, or room to send where that is asked for; false when the time is over. */
  bool wait(bool toSend, std::chrono::milliseconds timeout) const;
  /** A descriptor of the same socket, for the caller to close. */
  Expected<int> duplicate() const;

 private:
  explicit ControlSocket(Fd socket) : socket_(std::move(socket)) {}

  Fd socket_;
};

}  // namespace mooncake::service
