// process_vm_readv/writev, tried in both directions with a child of our own. Yama's ptrace_scope 1 (the
// default of many distributions) lets a process reach its descendants but nobody else, so a parent that
// reaches its child says nothing of peers; a child that reaches its parent is in the place of a peer.
#include "topology/features.h"

#include "engine/status.h"

#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mooncake {

namespace {

/** Reads the word of `process` at `word` and writes it back plus one. 0, or the errno of the call that
 * failed. */
int increment(pid_t process, u64* word) {
  u64 copy = 0;
  iovec here{&copy, sizeof copy};
  iovec there{word, sizeof copy};
  if (process_vm_readv(process, &here, 1, &there, 1, 0) != sizeof copy)
    return errno;
  copy++;
  if (process_vm_writev(process, &here, 1, &there, 1, 0) != sizeof copy)
    return errno;
  return 0;
}

/** One word from a socket within a second; false where none comes. */
bool receive(int socket, int& word) {
  pollfd ready{socket, POLLIN, 0};
  return poll(&ready, 1, 1000) == 1 && recv(socket, &word, sizeof word, 0) == sizeof word;
}

/** The child: only async-signal-safe calls, since the parent may have threads. */
[[noreturn]] void beChild(int socket, pid_t parent, u64* word) {
  const int error = increment(parent, word);
  (void)!send(socket, &error, sizeof error, MSG_NOSIGNAL);
  int done = 0;
  (void)receive(socket, done);
  _exit(0);
}

Feature result(const char* name, int error, const char* done) {
  if (error != 0)
    return {name, false, systemError("process_vm_readv", error).detail};
  return {name, true, done};
}

std::vector<Feature> both(const Status& status) {
  return {{"processVm", false, status.detail}, {"processVmPeers", false, status.detail}};
}

} // namespace

std::vector<Feature> probeProcessVm() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return both(systemError("socketpair", errno));
  // A page of its own, not shared: the child's copy differs from ours as soon as one of them is written.
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) {
    const Status status = systemError("mmap of one page", errno);
    close(ends[0]);
    close(ends[1]);
    return both(status);
  }
  auto* word = static_cast<u64*>(page);
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0)
    beChild(ends[1], self, word);
  const int forkError = errno;
  close(ends[1]);
  std::vector<Feature> features;
  int peerError = 0;
  if (child < 0) {
    features = both(systemError("fork", forkError));
  } else if (!receive(ends[0], peerError)) {
    features = both({Code::timeout, "the child that should have tried it did not answer"});
  } else {
    const int error = increment(child, word);
    features = {
        result("processVm", error, "a child was read and written"),
        result("processVmPeers", peerError, "a process of the same user may read and write this one")};
  }
  if (child > 0) {
    kill(child, SIGKILL);
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR)
      continue;
  }
  close(ends[0]);
  munmap(page, 4096);
  return features;
}

} // namespace mooncake
