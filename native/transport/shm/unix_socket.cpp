#include "transport/shm/unix_socket.h"

#include <cstring>

namespace mooncake::shm {

Expected<sockaddr_un> unixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Status(Code::invalidArgument, "socket path of " + std::to_string(path.size()) + " bytes: 1 to 107 are possible");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::vector<Fd> receivedDescriptors(msghdr& header) {
  std::vector<Fd> descriptors;
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(item) + i * sizeof(int), sizeof received);
      descriptors.emplace_back(received);
    }
  }
  return descriptors;
}

}  // namespace mooncake::shm
