// Asked of the processor itself: compilers' __builtin_cpu_supports needs a run-time library that cross compilers lack.
#include "checksum/processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace mooncake::checksum {

#if defined(__x86_64__)

namespace {

constexpr bool bit(unsigned word, unsigned index) { return ((word >> index) & 1) != 0; }

/** XCR0: which registers the system saves. */
unsigned savedRegisters() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace

// Bits as in Intel's "Architecture Instruction Set Extensions Programming Reference", CPUID leaves 1 and 7.
Processor detectProcessor() {
  Processor found;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return found;
  found.carryless = bit(c, 1) && bit(c, 9);
  const bool osxsave = bit(c, 27);
  if (!osxsave || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
  constexpr unsigned avxState = 0x06;
  constexpr unsigned avx512State = 0xe6;
  const unsigned saved = savedRegisters();
  const bool vpclmul = found.carryless && bit(c, 10);
  found.carryless256 = vpclmul && bit(b, 5) && (saved & avxState) == avxState;
  const bool avx512 = bit(b, 16) && bit(b, 30);  // F and BW
  const bool gfni = bit(c, 8);
  found.carryless512 = vpclmul && avx512 && gfni && (saved & avx512State) == avx512State;
  return found;
}

#elif defined(__aarch64__)

Processor detectProcessor() {
  constexpr unsigned long pmull = 1UL << 4;  // HWCAP_PMULL of asm/hwcap.h
  Processor found;
  found.carryless = (getauxval(AT_HWCAP) & pmull) != 0;
  return found;
}

#else

Processor detectProcessor() { return {}; }

#endif

}  // namespace mooncake::checksum
