// The node service's second socket: engines of this host hand over the descriptors of their memory, each under a ticket
// that they then name on the control socket, which Node serves and which cannot carry descriptors. A thread takes them;
// what nobody asks for is closed after a while. docs/service.md has the packets.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"

#include <sys/types.h>

#include <array>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mooncake::service {

using Ticket = std::array<u8, 16>;

/** What a descriptor stands for. */
enum class Handed : u64 {
  /** A memfd, sealed against shrinking. */
  memory = 0,
  /** An allocation of a GPU's memory, which its driver made a descriptor of and can tell from others. */
  allocation = 1,
};

struct DescriptorLimits {
  /** How long a descriptor waits for its ticket to be named, and a connection for its next packet. */
  std::chrono::milliseconds patience{30'000};
  /** A cache of PyTorch's expandable segments has one for each 20 MiB, and all engines of a host may start at once. */
  size_t tickets = 1 << 16;
  size_t connections = 256;
};

/** Who is at the other end of a Unix socket, by the kernel's word; pid 0 where it is in a namespace that we do not see. */
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
};
Expected<Peer> peerOf(int socket);

class DescriptorSocket {
 public:
  using Limits = DescriptorLimits;

  /** Listens at `path`, which must not exist, for processes of this user and of root. */
  static Expected<std::unique_ptr<DescriptorSocket>> listen(const std::string& path, const Limits& limits = {});
  ~DescriptorSocket() { close(); }
  DescriptorSocket(const DescriptorSocket&) = delete;
  DescriptorSocket& operator=(const DescriptorSocket&) = delete;

  /** The descriptor of that kind that `pid` has handed over under this ticket; the ticket is used up then. Any thread. */
  Expected<Fd> take(const Ticket& ticket, pid_t pid, Handed kind = Handed::memory);

  /** Descriptors that wait for their ticket. */
  size_t waiting() const;

  /** Stops listening, ends connections, closes what waits. Idempotent; not from two threads at once. */
  void close();

 private:
  using Clock = std::chrono::steady_clock;

  struct Waiting {
    Fd fd;
    Handed kind;
    pid_t pid;
    Clock::time_point since;
  };
  struct Connection {
    Fd socket;
    pid_t pid;
    Clock::time_point heard;
  };

  DescriptorSocket(std::string path, const Limits& limits) : path_(std::move(path)), limits_(limits) {}

  void run();
  void accept();
  /** Takes what the connection has to say; false where it is to be ended. */
  bool receive(Connection& connection);
  Status keep(const Ticket& ticket, u64 length, Handed kind, Fd fd, pid_t pid);
  void expire();

  const std::string path_;
  const Limits limits_;
  Fd listener_;
  Fd wake_;
  std::thread thread_;
  // The thread's alone:
  std::vector<Connection> connections_;

  mutable std::mutex mutex_;
  std::map<Ticket, Waiting> waiting_;
};

/** Hands `fd` over to the service that listens at `path`. Blocks, `timeout` at most. Errors say why it was refused. */
Status handOver(const std::string& path, const Ticket& ticket, u64 length, int fd, std::chrono::milliseconds timeout,
                Handed kind = Handed::memory);

}  // namespace mooncake::service
