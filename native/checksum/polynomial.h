// Arithmetic of polynomials over GF(2) modulo P = x^64 + `polynomial`, at compile time: the tables and the constants by
// which the forms fold. A 64-bit word is a polynomial whose most significant bit is the coefficient of x^63.
//
// A message M of n bits has the CRC M * x^64 mod P. Multiplying by a power of x modulo P moves a piece of the message
// towards its end: with H:L the 128 bits of a register that stands D bits before another,
//     (H * x^64 + L) * x^D  =  H * (x^(D+64) mod P) + L * (x^D mod P)   (mod P),
// and both products have less than 128 bits, so that they are added to that other register ("folding": Gopal et al.,
// "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009).
#pragma once

#include "engine/status.h"

#include <array>

namespace mooncake::checksum {

inline constexpr u64 polynomial = 0x42F0E1EBA9EA3693;

/** v * x mod P. */
constexpr u64 timesX(u64 v) { return (v << 1) ^ ((v >> 63) != 0 ? polynomial : 0); }

/** a * b mod P. */
constexpr u64 times(u64 a, u64 b) {
  u64 product = 0;
  for (int i = 63; i >= 0; i--) product = timesX(product) ^ (((b >> i) & 1) != 0 ? a : 0);
  return product;
}

/** x^n mod P. */
constexpr u64 xPower(u64 n) {
  u64 power = 1;
  for (u64 square = 2; n != 0; n >>= 1, square = times(square, square)) {
    if ((n & 1) != 0) power = times(power, square);
  }
  return power;
}

/** The two factors that move a 128-bit register on by `bits`. */
struct FoldKey {
  u64 high;
  u64 low;
};
consteval FoldKey foldKey(u64 bits) { return {xPower(bits + 64), xPower(bits)}; }

/** `v` with its bits in the other order. */
constexpr u64 mirrored(u64 v) {
  u64 turned = 0;
  for (int i = 0; i < 64; i++, v >>= 1) turned = (turned << 1) | (v & 1);
  return turned;
}

/** The same for registers whose bit i has the coefficient of x^(127 - i): the first eight bytes are the low half, and a
    product of mirrored words is one bit short, which is a factor of x. */
consteval FoldKey mirroredKey(u64 bits) { return {mirrored(xPower(bits - 1)), mirrored(xPower(bits + 63))}; }

/** floor(x^128 / P) without its leading x^64: long division, the quotient's bits being those that timesX reduces. */
consteval u64 barrettQuotient() {
  u64 quotient = 0;
  u64 remainder = polynomial;
  for (int i = 0; i < 64; i++) {
    quotient = (quotient << 1) | (remainder >> 63);
    remainder = timesX(remainder);
  }
  return quotient;
}

/** `sliceTables[k][b]` is the CRC of byte b followed by k zero bytes. */
using SliceTables = std::array<std::array<u64, 256>, 16>;
consteval SliceTables makeSliceTables() {
  SliceTables tables{};
  for (unsigned byte = 0; byte < 256; byte++) {
    u64 crc = u64{byte} << 56;
    for (int i = 0; i < 8; i++) crc = timesX(crc);
    tables[0][byte] = crc;
  }
  for (unsigned k = 1; k < 16; k++) {
    for (unsigned byte = 0; byte < 256; byte++) {
      const u64 before = tables[k - 1][byte];
      tables[k][byte] = (before << 8) ^ tables[0][before >> 56];
    }
  }
  return tables;
}

}  // namespace mooncake::checksum
