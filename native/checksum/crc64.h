// CRC-64/ECMA-182 (catalogue of CRC RevEng): polynomial 0x42F0E1EBA9EA3693, most significant bit first, init 0, no final
// XOR; "123456789" gives 0x6c40df5f0b497347. The same sum as src/core/checksum.ts. The state between two pieces is the
// CRC itself: crc64(a then b, crc) = crc64(b, crc64(a, crc)).
#pragma once

#include "engine/status.h"

namespace mooncake {

/** CRC-64 of `length` bytes, continued from `crc`. Any length and alignment. */
[[nodiscard]] u64 crc64(const u8* data, u64 length, u64 crc);

/** Which instructions the sums use here: "vpclmul512", "vpclmul256", "pclmul", "pmull", "table". */
[[nodiscard]] const char* checksumKind();

}  // namespace mooncake
