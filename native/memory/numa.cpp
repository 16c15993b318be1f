#include "memory/numa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string>

namespace mooncake {

namespace {

/** "0": where there is one, nothing is near or far. */
bool severalNodes() {
  std::ifstream file("/sys/devices/system/node/online");
  std::string nodes;
  return std::getline(file, nodes) && nodes != "0";
}

}  // namespace

int numaNodeOf(const u8* base, u64 length) {
  static const bool several = severalNodes();
  if (!several) return -1;
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  const u64 first = reinterpret_cast<u64>(base);
  std::array<u64, 3> pages{first, first + length / 2, first + length - 1};
  for (u64& each : pages) each -= each % page;
  std::array<int, 3> nodes{-1, -1, -1};
  // Without nodes to move them to, the call says where pages are.
  if (syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, nodes.data(), 0) != 0) return -1;
  return nodes[0] >= 0 && nodes[0] == nodes[1] && nodes[0] == nodes[2] ? nodes[0] : -1;
}

}  // namespace mooncake
