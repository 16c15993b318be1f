// Two processes for tests of shared memory: the parent is the grantee, a forked child owns the memory and does what the
// parent says, one line at a time. Forked before the parent has threads.
#pragma once

#include "engine/engine.h"
#include "test/check.h"

#include <sys/types.h>

#include <functional>
#include <future>

namespace mooncake::shmtest {

/** A folder of its own, removed at the end. */
struct Folder {
  Folder();
  ~Folder();
  std::string path;
};

/** Memory as the owner announces it. */
struct Announced {
  u32 id = 0;
  u64 length = 0;
};

/** The child. Its segments are filled by pattern(id). */
class OwnerProcess {
 public:
  struct Options {
    Settings listen;
    /** Runs in the child before it has an engine: another user, a filter. */
    std::function<void()> prepare;
    u64 length = 8 << 20;
    /** `shared` is memory of the process, which no engine owns. */
    bool processMemory = false;
  };
  explicit OwnerProcess(Options options);
  ~OwnerProcess();

  /** Sends a line, returns the answer's. Commands: "sum ID" (the CRC of a segment), "remove ID" (answers when it is asked
      for), "removed ID MS" (waits so long: whether it was released), "fill ID SEED", "peek ID" (first byte), "exit". */
  std::string ask(const std::string& command);
  /** Sends a signal; SIGSTOP is waited for. */
  void kill(int signal);
  /** Waits for its end. */
  void join();

  pid_t pid = -1;
  u64 generation = 0;
  PeerEndpoint endpoint;
  /** memfd, writable; memfd, read-only; foreign, writable. */
  Announced shared, readOnly, foreign;
  bool ready = false;

 private:
  [[noreturn]] static void serve(const Options& options, int in, int out);
  int in_ = -1;
  int out_ = -1;
  std::string buffer_;
};

void fill(u8* data, u64 length, u64 seed);
u64 sumOf(u64 length, u64 seed);

/** The grantee: an engine with a peer and memory of its own. */
struct Grantee {
  explicit Grantee(const OwnerProcess& owner, Settings extra = {}, u64 length = 8 << 20);

  /** Moves whole segments in records of `block` bytes. */
  std::vector<Record> records(Op op, const Announced& remote, u64 block, u64 length = 0) const;
  std::future<BatchResult> start(Op op, std::vector<Record> records, bool verify = true, int milliseconds = 20000);
  BatchResult move(Op op, const Announced& remote, u64 block, bool verify = true) {
    return start(op, records(op, remote, block), verify).get();
  }

  Engine engine;
  std::vector<u8> data;
  u32 id = 0;
  u32 peer = 0;
  u64 batch = 0;
};

/** Entries of /proc/self/fd, and threads. */
size_t openDescriptors();
size_t threads();
/** Lines of /proc/self/maps that name a memfd. */
size_t memfdMappings();

}  // namespace mooncake::shmtest
