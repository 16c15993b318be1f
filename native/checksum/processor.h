// What the processor, and the system that saves its registers, can do.
#pragma once

namespace mooncake::checksum {

struct Processor {
  /** 128-bit carry-less multiplication: PCLMULQDQ with SSSE3, or PMULL. */
  bool carryless = false;
  /** VPCLMULQDQ with AVX2. */
  bool carryless256 = false;
  /** VPCLMULQDQ with AVX-512 and GFNI: of Intel from Ice Lake on, of AMD from Zen 4 on. */
  bool carryless512 = false;
};

/** Asks the processor anew. */
Processor detectProcessor();

}  // namespace mooncake::checksum
