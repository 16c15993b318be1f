#include "transport/file/file.h"
#include "transport/local/local.h"

namespace mooncake {

const std::vector<std::pair<const char*, MakeTransport>>& transports() {
  static const std::vector<std::pair<const char*, MakeTransport>> all = {
      {"file", makeFileTransport},
      {"local", makeLocalTransport},
  };
  return all;
}

}  // namespace mooncake
