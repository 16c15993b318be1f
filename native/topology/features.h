// What this machine lets a process do, found out by doing it: a kernel that has a call may still forbid it
// (seccomp in containers, Yama, limits), and only trying tells. What files say (limits, NUMA nodes, NICs) is
// read by TypeScript (src/native), which works without the accelerator too.
#pragma once

#include <string>
#include <vector>

namespace mooncake {

struct Feature {
  /** "memfd", "hugePages", "memoryPolicy", "processVm", "processVmPeers", "ioUring", or a library's file
   * name. */
  std::string name;
  bool usable = false;
  /** What was found, or what failed and how. */
  std::string detail;
};

/** Anonymous memory that other processes can map, sealed against shrinking. */
Feature probeMemfd();

/** One 2 MiB page, taken and touched. */
Feature probeHugePages();

/** mbind, which places memory on a NUMA node. */
Feature probeMemoryPolicy();

/** process_vm_readv/writev on a child, and by a child on this process as a peer would use them: Yama tells
 * them apart. */
std::vector<Feature> probeProcessVm();

/** io_uring_setup. */
Feature probeIoUring();

/** Whether dlopen finds a library. */
Feature probeLibrary(const char* file);

/** All of the above. Takes some milliseconds, forks once, leaves nothing open. */
std::vector<Feature> probeFeatures();

} // namespace mooncake
