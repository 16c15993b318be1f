// process_vm_readv and process_vm_writev: memory that another process did not mean to share, within what the kernel allows
// (same user, no filter, no restriction of ptrace). Whether it does is found out by doing it.
#pragma once

#include "engine/status.h"

#include <sys/types.h>
#include <sys/uio.h>

#include <vector>

namespace mooncake::shm {

/** What peers may read and write of this process to find out whether they can: 16 random bytes, then 8 to write. */
struct ProbeTarget {
  u8 nonce[16];
  u64 scratch;
};
/** One per process, there until its end. */
const ProbeTarget& probeTarget();

/** Reads the nonce at `address` of the process and writes behind it; ok where it is that process, else why not. */
Status probeProcess(pid_t pid, u64 address, const u8 (&nonce)[16]);

/** Moves all of `local` and `remote` (as many bytes on both sides; at most 1,024 entries each), by as many calls as the
    kernel needs. peer: the process has gone. notSupported: the kernel refuses. segment: its memory is not there. */
Status moveProcess(pid_t pid, bool write, std::vector<iovec>& local, std::vector<iovec>& remote);

/** What this machine says of it, for doctor. */
Status probeSelf(std::string& detail);

}  // namespace mooncake::shm
