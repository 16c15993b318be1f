#include "transport/shm/vm.h"

#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace mooncake::shm {

namespace {

/** By number: libc of some systems has no wrapper, and a filter answers the same. */
ssize_t processVm(pid_t pid, bool write, const iovec* local, size_t locals, const iovec* remote, size_t remotes) {
  return ::syscall(write ? SYS_process_vm_writev : SYS_process_vm_readv, pid, local, locals, remote, remotes, 0UL);
}

Status refusal(const char* call, int error) {
  switch (error) {
    case ESRCH: return systemError(call, error, Code::peer);
    case EFAULT: return {Code::segment, std::string(call) + ": the peer's memory is not mapped there"};
    case EPERM:
    case ENOSYS: return systemError(call, error, Code::notSupported);
    case ENOMEM: return systemError(call, error, Code::outOfMemory);
  }
  return systemError(call, error);
}

/** Leaves out the first `bytes`; `at` is the first entry that has some left. */
void advance(std::vector<iovec>& vectors, size_t& at, size_t bytes) {
  while (at < vectors.size() && bytes >= vectors[at].iov_len) bytes -= vectors[at++].iov_len;
  if (bytes == 0) return;
  vectors[at].iov_base = static_cast<u8*>(vectors[at].iov_base) + bytes;
  vectors[at].iov_len -= bytes;
}

}  // namespace

const ProbeTarget& probeTarget() {
  static const ProbeTarget* const target = [] {
    // Writable, though const to this process: others write `scratch`.
    static ProbeTarget made{};
    if (::getrandom(made.nonce, sizeof made.nonce, 0) != sizeof made.nonce) std::memset(made.nonce, 0, sizeof made.nonce);
    return &made;
  }();
  return *target;
}

Status probeProcess(pid_t pid, u64 address, const u8 (&nonce)[16]) {
  if (pid == 0) return {Code::notSupported, "the peer is in a process namespace that is not visible from here"};
  u8 seen[16] = {};
  iovec local{seen, sizeof seen};
  iovec remote{reinterpret_cast<void*>(address), sizeof seen};
  const ssize_t read = processVm(pid, false, &local, 1, &remote, 1);
  if (read < 0) return refusal("process_vm_readv", errno);
  if (read != sizeof seen || std::memcmp(seen, nonce, sizeof seen) != 0) {
    return {Code::notSupported, "process_vm_readv reached another process than the peer"};
  }
  u64 scratch = 1;
  local = {&scratch, sizeof scratch};
  remote = {reinterpret_cast<void*>(address + sizeof seen), sizeof scratch};
  if (processVm(pid, true, &local, 1, &remote, 1) != sizeof scratch) return refusal("process_vm_writev", errno);
  return {};
}

Status moveProcess(pid_t pid, bool write, std::vector<iovec>& local, std::vector<iovec>& remote) {
  size_t here = 0;
  size_t there = 0;
  while (there < remote.size() && here < local.size()) {
    const ssize_t moved =
        processVm(pid, write, local.data() + here, local.size() - here, remote.data() + there, remote.size() - there);
    if (moved <= 0) return refusal(write ? "process_vm_writev" : "process_vm_readv", moved < 0 ? errno : EFAULT);
    advance(local, here, static_cast<size_t>(moved));
    advance(remote, there, static_cast<size_t>(moved));
  }
  return {};
}

Status probeSelf(std::string& detail) {
  const ProbeTarget& target = probeTarget();
  Status status = probeProcess(::getpid(), reinterpret_cast<u64>(&target), target.nonce);
  detail = status.ok() ? "process_vm" : "no process_vm (" + status.detail + ")";
  if (std::FILE* const file = std::fopen("/proc/sys/kernel/yama/ptrace_scope", "re")) {
    int scope = 0;
    if (std::fscanf(file, "%d", &scope) == 1) {
      detail += ", ptrace_scope " + std::to_string(scope);
      if (scope == 1) detail += " (peers' process_vm needs the listener's setting ptracer=any)";
      if (scope > 1) detail += " (peers' process_vm needs privileges)";
    }
    std::fclose(file);
  }
  return status;
}

}  // namespace mooncake::shm
