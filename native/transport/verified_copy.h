// Copies whose destination is read again and compared with what was read from the source. Between processors' copies this
// finds memory that does not keep what is written, mappings that alias, and others who write the same destination. A source
// that changes meanwhile is no fault: the destination then holds one or the other.
#pragma once

#include "engine/status.h"

namespace mooncake {

/** As memmove; false where the destination does not hold what was read. */
[[nodiscard]] bool copyVerified(u8* to, const u8* from, u64 length);

}  // namespace mooncake
