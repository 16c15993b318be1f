// Opens a file as a segment: one descriptor through the page cache, and a second one with O_DIRECT where the
// file system proves that it can.
#pragma once

#include "memory/segment.h"

namespace mooncake {

struct FileOptions {
  /** A file that is longer stays so; one that is shorter, or new, gets that many bytes, allocated on the
     disk. 0: as long as the file is. */
  u64 length = 0;
  bool writable = false;
  /** False: through the page cache alone. */
  bool direct = true;
};

/** Registers a regular file or a block device. Writable files are made where there are none, for their owner
   alone. Errors name the path: invalidArgument (what is no file, has no bytes, or is too short), system (what
   the call said). */
Expected<u32> openFile(MemoryTable& memory, const std::string& path, const FileOptions& options);

} // namespace mooncake
