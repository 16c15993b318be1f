// One end of the Unix socket between two processes: packets and the descriptors that travel with them. Never blocks;
// what the other does not take waits in a bounded queue. One thread uses it.
#pragma once

#include "engine/fd.h"
#include "transport/shm/messages.h"

#include <sys/types.h>

#include <deque>

namespace mooncake::shm {

/** Who is at the other end, by the kernel's word. */
struct Credentials {
  /** 0 where the other is in a process namespace that this one does not see. */
  pid_t pid = 0;
  uid_t uid = 0;
};

class Channel {
 public:
  enum class Got : u8 { message, nothing, closed, bad };

  Channel() = default;
  /** A connected, non-blocking socket. */
  explicit Channel(Fd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  Credentials credentials() const;

  /** Sends or queues; `descriptor` goes along. Fails where the other has gone, or has not taken anything for long. */
  Status send(const Message& message, Fd descriptor = Fd());
  /** Sends what is queued and fits. */
  Status flush();
  /** Something is queued: flush when the socket can be written. */
  bool congested() const { return !queue_.empty(); }

  /** The next message, with the descriptor that came along. `why` says what was bad. */
  Got receive(Message& message, Fd& descriptor, Status& why);

  void close();

 private:
  struct Outgoing {
    std::vector<u8> packet;
    Fd descriptor;
  };
  /** False where the socket is full. */
  Expected<bool> transmit(const Outgoing& outgoing);

  Fd socket_;
  std::deque<Outgoing> queue_;
  std::vector<u8> buffer_;
};

/** Connects to a socket in the file system. queueFull: its backlog is full. closed: nobody listens on it any more. */
Expected<Fd> connectTo(const std::string& path);

}  // namespace mooncake::shm
