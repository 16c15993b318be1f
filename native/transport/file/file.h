// Files as segments (Backing::file): link.h has how they are reached, memory/file.h how they come to be.
#pragma once

#include "transport/transport.h"

namespace mooncake {

/** Its endpoint's settings: "io", one of "uring" and "threads"; by default the first of them that the kernel
   allows. The environment variable MOONCAKE_FILE_IO says the same for a process. */
std::unique_ptr<Transport> makeFileTransport(TransportContext& context);

} // namespace mooncake
