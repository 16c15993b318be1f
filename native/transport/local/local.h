// Copies between memories of this process. Small slices are copied where they are posted: waking a thread costs more
// than they do. Others go to the copy threads, in slices, so that a large batch uses all of them.
#pragma once

#include "transport/transport.h"

namespace mooncake {

std::unique_ptr<Transport> makeLocalTransport(TransportContext& context);

}  // namespace mooncake
