// Memory that another program made and gave a name in the file system, such as those below /dev/shm.
#pragma once

#include "memory/allocate.h"

namespace mooncake {

/** Maps [offset, offset + length) of a file, to be read and written by all who map it; `offset` lies at a page's start. Refuses what
    is no file, and a range beyond its end. Nobody keeps the file's owner from cutting it later: an access to what is cut off ends
    this process. */
Expected<std::shared_ptr<Mapping>> mapFile(int fd, u64 offset, u64 length);

}  // namespace mooncake
