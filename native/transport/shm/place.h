// Where a listener's socket stands in the file system, and what tells peers that they see the same one.
#pragma once

#include "engine/fd.h"
#include "transport/transport.h"

namespace mooncake::shm {

/** A listening socket of ours; unlinked at the end. */
class Place {
 public:
  Place() = default;
  Place(Place&& other) noexcept { *this = std::move(other); }
  Place& operator=(Place&& other) noexcept;
  ~Place() { close(); }

  /** Makes the directory where there is none, removes sockets in it that nobody listens on, and listens.
      settings.directory: absolute; it must belong to this user and be writable by nobody else.
      settings.peers: "same" (this user and root), or "any". */
  static Expected<Place> listen(const Settings& settings, u64 generation);

  int fd() const { return socket_.get(); }
  bool anyPeer() const { return anyPeer_; }
  /** socket: its path. host: the run of the kernel. file: device and inode of the socket, by which a peer that has another
      file system at that path (a container, another machine with a cloned disk) knows it. */
  const Settings& announced() const { return announced_; }
  void close();

 private:
  Fd socket_;
  std::string path_;
  bool anyPeer_ = false;
  Settings announced_;
};

/** ok where the socket that the peer announced is the one that its path names here; else why not. */
Status checkPlace(const Settings& endpoint);

/** "boot id"; the host's name where the kernel does not tell. */
std::string hostIdentity();

}  // namespace mooncake::shm
