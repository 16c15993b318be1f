// Connections that ended while the peer may still apply what was written over them: it had not read it yet, or the network
// held it back. Whoever asks the peer for anything over another stream first has it end them (frames.h: fence), so that no
// late bytes of a write that failed land on those of one that came after it. Shared by the streams to one run of a peer.
#pragma once

#include "engine/status.h"

#include <atomic>
#include <map>
#include <mutex>

namespace mooncake::tcp {

class Fences {
 public:
  /** By the number of a stream, its connection. */
  using Ended = std::map<u32, u16>;

  void ended(u32 stream, u16 connection) {
    const std::lock_guard lock(mutex_);
    ended_[stream] = connection;
    version_.fetch_add(1);
  }
  /** The peer has ended all earlier connections of that stream. */
  void replaced(u32 stream) {
    const std::lock_guard lock(mutex_);
    ended_.erase(stream);
  }
  /** Another one: there is something to be fenced. */
  u64 version() const { return version_.load(); }
  Ended list() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

 private:
  mutable std::mutex mutex_;
  Ended ended_;
  std::atomic<u64> version_{0};
};

}  // namespace mooncake::tcp
