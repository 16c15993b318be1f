// GPUs: copies between their memories, and between them and host memory, within one engine. The memory may be another
// process's (memory.h), so this is also how an engine's KV cache is reached by whoever serves it on the same host.
#pragma once

#include "transport/transport.h"

namespace mooncake {

std::unique_ptr<Transport> makeCudaTransport(TransportContext& context);

}  // namespace mooncake
