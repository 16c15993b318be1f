// TCP: a port that serves peers of ours and stock ones (listener.h), and links to both (own_stream.h, stock_stream.h).
//
// Settings of listen:  host (127.0.0.1), port (0: a free one). Returns both as they are.
// Settings of open:    host, port; framing own (default), stock2 or stock1; streams (own: 2, stock: 4; 1 to 16).
#pragma once

#include "transport/transport.h"

namespace mooncake {

/** `context` outlives the transport. */
std::unique_ptr<Transport> makeTcpTransport(TransportContext& context);

}  // namespace mooncake
