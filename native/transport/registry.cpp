#include "transport/cuda/cuda.h"
#include "transport/file/file.h"
#include "transport/local/local.h"
#include "transport/rdma/rdma.h"
#include "transport/shm/shm.h"
#include "transport/tcp/tcp.h"

namespace mooncake {

const std::vector<std::pair<const char*, MakeTransport>>& transports() {
  static const std::vector<std::pair<const char*, MakeTransport>> all = {
      {"cuda", makeCudaTransport},
      {"file", makeFileTransport},
      {"local", makeLocalTransport},
      {"rdma", makeRdmaTransport},
      {"shm", makeShmTransport},
      {"tcp", makeTcpTransport},
  };
  return all;
}

}  // namespace mooncake
