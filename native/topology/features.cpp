#include "topology/features.h"

#include "engine/fd.h"
#include "engine/status.h"

#include <cerrno>
#include <cstdio>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mooncake {

namespace {

constexpr std::size_t kHugePage = 2u << 20;

Feature refused(const char* name, const std::string& call) {
  return {name, false, systemError(call, errno).detail};
}

/** What a raw system call has opened. */
Fd descriptor(long result) { return Fd(static_cast<int>(result)); }

} // namespace

Feature probeMemfd() {
  const Fd fd = descriptor(syscall(SYS_memfd_create, "mooncake-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd)
    return refused("memfd", "memfd_create");
  if (ftruncate(fd.get(), 4096) != 0)
    return refused("memfd", "ftruncate of a memfd");
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return refused("memfd", "F_ADD_SEALS of a memfd");
  return {"memfd", true, "memfd_create with seals"};
}

Feature probeHugePages() {
  const Fd fd = descriptor(syscall(SYS_memfd_create, "mooncake-probe", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
  if (!fd)
    return refused("hugePages", "memfd_create with 2 MiB pages");
  if (ftruncate(fd.get(), kHugePage) != 0)
    return refused("hugePages", "ftruncate to one 2 MiB page");
  // Reserves the page, or fails: without MAP_NORESERVE nothing is left to die of at the first touch.
  void* page = mmap(nullptr, kHugePage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED)
    return refused("hugePages", "mmap of one 2 MiB page");
  munmap(page, kHugePage);
  return {"hugePages", true, "one 2 MiB page was mapped"};
}

Feature probeMemoryPolicy() {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED)
    return refused("memoryPolicy", "mmap of one page");
  const long bound = syscall(SYS_mbind, page, 4096ul, MPOL_DEFAULT, nullptr, 0ul, 0u);
  const int error = errno;
  munmap(page, 4096);
  errno = error;
  if (bound != 0)
    return refused("memoryPolicy", "mbind");
  return {"memoryPolicy", true, "mbind"};
}

Feature probeIoUring() {
  io_uring_params params{};
  const Fd ring = descriptor(syscall(SYS_io_uring_setup, 4u, &params));
  if (!ring)
    return refused("ioUring", "io_uring_setup");
  char text[48];
  std::snprintf(text, sizeof text, "io_uring with features 0x%x", params.features);
  return {"ioUring", true, text};
}

Feature probeLibrary(const char* file) {
  void* library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return {file, false, why != nullptr ? why : "dlopen failed"};
  }
  dlclose(library);
  return {file, true, "dlopen finds it"};
}

std::vector<Feature> probeFeatures() {
  std::vector<Feature> features = {probeMemfd(), probeHugePages(), probeMemoryPolicy(), probeIoUring()};
  for (Feature& feature : probeProcessVm())
    features.push_back(std::move(feature));
  features.push_back(probeLibrary("libibverbs.so.1"));
  features.push_back(probeLibrary("libcuda.so.1"));
  return features;
}

} // namespace mooncake
