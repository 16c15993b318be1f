// Looks up host names on a thread of its own, which is started by the first name that is no literal address.
#pragma once

#include "transport/tcp/stream.h"

#include <deque>
#include <thread>

namespace mooncake::tcp {

class Resolver {
 public:
  ~Resolver() { close(); }

  /** Fills in the route's addresses, or why there are none. */
  void lookUp(std::shared_ptr<Route> route, std::string host, std::string port);
  /** Waits for a lookup under way, which takes as long as the machine's resolver does. Idempotent. */
  void close();

 private:
  struct Job {
    std::shared_ptr<Route> route;
    std::string host;
    std::string port;
  };
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  std::thread thread_;
  bool closed_ = false;
};

}  // namespace mooncake::tcp
