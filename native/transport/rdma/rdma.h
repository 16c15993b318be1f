// RDMA over libibverbs: each NIC of ours with one of the peer's is a link (path.h). Without library or NIC nothing is opened.
#pragma once

#include "transport/transport.h"

namespace mooncake {

/** Settings of `listen`: "server", by which peers call us; "devices", "gidIndex", … (rdma/device.h), "links" (predicted or round-robin). What it announces has "server",
    and lists with an entry for each NIC: "devices", "gids", "lids", "nodes". An endpoint with "protocol": "stock" is a Mooncake
    engine's. */
std::unique_ptr<Transport> makeRdmaTransport(TransportContext& context);

}  // namespace mooncake
