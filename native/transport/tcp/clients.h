// The connections of peers of ours that a transport serves, by who they are: so that a peer can end one of its own that it
// has given up, of which something may still arrive. Connections live on several loops; each is ended on its own.
#pragma once

#include "transport/tcp/loop.h"

#include <map>

namespace mooncake::tcp {

class OwnServer;

/** As its hello says. Streams have one connection at a time. */
struct ClientName {
  u64 generation = 0;
  u32 stream = 0;
  bool operator<(const ClientName& other) const {
    return generation != other.generation ? generation < other.generation : stream < other.stream;
  }
};

struct ServedClient {
  u16 connection = 0;
  std::shared_ptr<Loop> loop;
  std::weak_ptr<OwnServer> server;
};

class Clients {
 public:
  /** Whoever had that name before, or nobody. */
  ServedClient enter(const ClientName& name, ServedClient client) {
    const std::lock_guard lock(mutex_);
    return std::exchange(clients_[name], std::move(client));
  }
  ServedClient find(const ClientName& name, u16 connection) const {
    const std::lock_guard lock(mutex_);
    const auto found = clients_.find(name);
    return found != clients_.end() && found->second.connection == connection ? found->second : ServedClient();
  }
  void leave(const ClientName& name, u16 connection) {
    const std::lock_guard lock(mutex_);
    const auto found = clients_.find(name);
    if (found != clients_.end() && found->second.connection == connection) clients_.erase(found);
  }

 private:
  mutable std::mutex mutex_;
  std::map<ClientName, ServedClient> clients_;
};

}  // namespace mooncake::tcp
