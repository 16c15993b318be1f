// CRC-64/ECMA-182: polynomial 0x42F0E1EBA9EA3693, most significant bit first, init 0, no final XOR; "123456789" gives
// 6c40df5f0b497347. Inside, the state is kept byte-reversed, so that data is loaded as it lies and never swapped.
//
// Two kernels. Slicing-16 looks up sixteen tables for every 16 bytes. From FOLD_MIN bytes on, folding by a sparse
// multiple of the polynomial does most of the work (S. Russell, "Chorba: A novel CRC32 implementation",
// arXiv 2412.16398; the multiple for this polynomial is our own): with y = x^8, P(x) divides
//
//   1 + y^317 + y^2416 + y^2452 + y^2934 + y^2993 + y^3762 + y^3894
//
// so a byte is cancelled by XORing it into the bytes 132, 901, 960, 1442, 1478, 3577 and 3894 further on, and sixteen
// bytes go at a time. What is left, the last 4 KiB, goes through slicing-16.
//
// No state is kept between calls: the caller gives CRC64_SCRATCH bytes of scratch. Only the tables stay. Every instance
// calls crc64Init once before its first checksum; instances over one shared memory write the same bytes.
import { CRC_TABLES } from '../memory';

const POLYNOMIAL: u64 = 0x42f0e1eba9ea3693;

// Distances from a byte to the bytes that cancel it: 3894 - 3762, 3894 - 2993, and so on.
const D0: usize = 132;
const D1: usize = 901;
const D2: usize = 960;
const D3: usize = 1442;
const D4: usize = 1478;
const D5: usize = 3577;
const D6: usize = 3894;

// The fold keeps its last HISTORY bytes in front of a window of WINDOW bytes: both stay in the first-level cache.
const HISTORY: usize = 3904;
const WINDOW: usize = 16384;
const STEP: usize = 128;
/** Below this, the 4 KiB left to slicing-16 and the cleared history eat up what folding gains. */
const FOLD_MIN: usize = 8192;

/** Bytes of scratch that crc64 and crc64Update want; its contents do not matter. */
export const CRC64_SCRATCH: usize = HISTORY + WINDOW;

/** Fills the tables: table t maps a byte to its remainder when t more bytes follow it. */
export function crc64Init(): void {
  for (let byte: usize = 0; byte < 256; byte++) {
    let remainder = <u64>byte << 56;
    for (let bit = 0; bit < 8; bit++) remainder = (remainder << 1) ^ (<i64>remainder < 0 ? POLYNOMIAL : 0);
    store<u64>(CRC_TABLES + (byte << 3), bswap(remainder));
  }
  for (let at: usize = CRC_TABLES; at < CRC_TABLES + 15 * 2048; at += 8) {
    const entry = load<u64>(at);
    store<u64>(at, (entry >>> 8) ^ load<u64>(CRC_TABLES + (<usize>(entry & 255) << 3)), 2048);
  }
}

// @ts-ignore: decorator
@inline
function look(table: usize, word: u64, shift: u64): u64 {
  return load<u64>(CRC_TABLES + (table << 11) + (<usize>((word >>> shift) & 255) << 3));
}

/** The eight bytes of `word`, followed by `after` more. */
// @ts-ignore: decorator
@inline
function slice8(word: u64, after: usize): u64 {
  return (
    look(after + 7, word, 0) ^ look(after + 6, word, 8) ^ (look(after + 5, word, 16) ^ look(after + 4, word, 24)) ^
    (look(after + 3, word, 32) ^ look(after + 2, word, 40) ^ (look(after + 1, word, 48) ^ look(after, word, 56)))
  );
}

function slicing(state: u64, data: usize, length: usize): u64 {
  for (; length >= 16; length -= 16, data += 16) {
    const low = slice8(load<u64>(data, 8), 0);
    state = low ^ slice8(load<u64>(data) ^ state, 8);
  }
  for (const end = data + length; data < end; data++) {
    state = (state >>> 8) ^ look(0, state ^ <u64>load<u8>(data), 0);
  }
  return state;
}

/** Sixteen bytes of data after everything before them is cancelled; `at` is where they go behind the history. */
// @ts-ignore: decorator
@inline
function folded(at: usize, data: usize): v128 {
  return v128.xor(
    v128.xor(v128.xor(v128.load(data), v128.load(at - D0)), v128.xor(v128.load(at - D1), v128.load(at - D2))),
    v128.xor(v128.xor(v128.load(at - D3), v128.load(at - D4)), v128.xor(v128.load(at - D5), v128.load(at - D6))),
  );
}

/** XORs into the tail what the cancelled bytes up to `distance` before it put there. */
function cancel(tail: usize, distance: usize): void {
  const source = tail - distance;
  let i: usize = 0;
  for (; i + 16 <= distance; i += 16) {
    v128.store(tail + i, v128.xor(v128.load(tail + i), v128.load(source + i)));
  }
  for (; i < distance; i++) store<u8>(tail + i, load<u8>(tail + i) ^ load<u8>(source + i));
}

function folding(state: u64, data: usize, length: usize, scratch: usize): u64 {
  const window = scratch + HISTORY;
  memory.fill(scratch, 0, HISTORY);
  let left = (length - D6) & ~(STEP - 1);
  const rest = length - left;
  let incoming = i64x2(state, 0);
  while (left > 0) {
    const take = min(left, WINDOW);
    const end = window + take;
    for (let at = window; at < end; at += STEP, data += STEP) {
      // D0 is more than STEP, so a step reads only what earlier steps stored; the incoming CRC is one XOR in the first.
      v128.store(at, v128.xor(folded(at, data), incoming));
      v128.store(at + 16, folded(at + 16, data + 16));
      v128.store(at + 32, folded(at + 32, data + 32));
      v128.store(at + 48, folded(at + 48, data + 48));
      v128.store(at + 64, folded(at + 64, data + 64));
      v128.store(at + 80, folded(at + 80, data + 80));
      v128.store(at + 96, folded(at + 96, data + 96));
      v128.store(at + 112, folded(at + 112, data + 112));
      incoming = i64x2.splat(0);
    }
    left -= take;
    memory.copy(scratch, end - HISTORY, HISTORY);
  }
  memory.copy(window, data, rest);
  cancel(window, D0);
  cancel(window, D1);
  cancel(window, D2);
  cancel(window, D3);
  cancel(window, D4);
  cancel(window, D5);
  cancel(window, D6);
  return slicing(0, window, rest);
}

/** CRC of `length` bytes at `data`, continuing from `crc` (0 at the start). */
export function crc64(data: usize, length: usize, crc: u64, scratch: usize): u64 {
  const state = bswap(crc);
  return bswap(length < FOLD_MIN ? slicing(state, data, length) : folding(state, data, length, scratch));
}

/** The same in place: continues the CRC stored at `crc` (8 bytes, little-endian), for callers without BigInt. */
export function crc64Update(crc: usize, data: usize, length: usize, scratch: usize): void {
  store<u64>(crc, crc64(data, length, load<u64>(crc), scratch));
}

/** Product modulo the polynomial. */
function multiply(a: u64, b: u64): u64 {
  let product: u64 = 0;
  for (let bit = 0; bit < 64; bit++) {
    product = (product << 1) ^ (<i64>product < 0 ? POLYNOMIAL : 0) ^ (<i64>b < 0 ? a : 0);
    b <<= 1;
  }
  return product;
}

/** CRC of A followed by B, from their CRCs and the length of B in bytes: a · x^(8 · length) + b. */
export function crc64Combine(a: u64, b: u64, length: u64): u64 {
  for (let square: u64 = 0x100; length != 0; length >>>= 1, square = multiply(square, square)) {
    if (length & 1) a = multiply(a, square);
  }
  return a ^ b;
}

/** CRC64_SCRATCH, for callers outside the core. */
export function crc64Scratch(): usize {
  return CRC64_SCRATCH;
}
