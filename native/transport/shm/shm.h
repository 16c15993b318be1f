// Shared memory between processes of one host: one thread, a listener for peers that want our memory (server.h), and
// links to those whose memory we want (link.h).
//
// Settings of listen: directory, peers (place.h), ptracer ("any": lets every process of this user reach our foreign memory
// by process_vm where ptrace_scope is 1). Of an endpoint: what listen announced, and reach, the best way that may be used:
// "mapped" (the default), "vm" or "staged". The variable MOONCAKE_SHM_REACH sets that for all peers.
#pragma once

#include "transport/transport.h"

namespace mooncake {

std::unique_ptr<Transport> makeShmTransport(TransportContext& context);

}  // namespace mooncake
