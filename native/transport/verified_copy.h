// Copies whose destination is read again and compared: what was read from the source (summed in the registers that were
// stored) with what then lies at the destination. Between processors' copies this finds memory that does not keep what is
// written, mappings that alias, and others who write the same destination.
#pragma once

#include "engine/status.h"

namespace mooncake {

/** As memmove; false where the destination's CRC-64 is not that of what was read. */
[[nodiscard]] bool copyVerified(u8* to, const u8* from, u64 length);

}  // namespace mooncake
