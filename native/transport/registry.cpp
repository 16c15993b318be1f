#include "transport/local/local.h"
#include "transport/tcp/tcp.h"

namespace mooncake {

const std::vector<std::pair<const char*, MakeTransport>>& transports() {
  static const std::vector<std::pair<const char*, MakeTransport>> all = {
      {"local", makeLocalTransport},
      {"tcp", makeTcpTransport},
  };
  return all;
}

}  // namespace mooncake
