// SHA-256 (FIPS 180-4) of one message: padding, initial state and digest around the rounds of sha256.rounds.ts.
import { compress, swapWords } from './sha256.rounds';

/** Initial state: the first 32 bits of the fractional parts of the square roots of the first eight primes. */
export const INITIAL: usize = memory.data<u32>([
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
]);

/**
 * Writes the padding after the `length` bytes at `message` (80 bytes from its end are overwritten) and returns how many
 * 64-byte compressions the padded message takes.
 */
// @ts-ignore: decorator
@inline
export function pad(message: usize, length: usize): u32 {
  const p = message + length, zero = i64x2.splat(0), count = <u32>((length + 72) >>> 6);
  v128.store(p, i64x2(0x80, 0));
  v128.store(p, zero, 16);
  v128.store(p, zero, 32);
  v128.store(p, zero, 48);
  v128.store(p, zero, 64);
  store<u64>(message + (<usize>count << 6) - 8, bswap(<u64>length << 3));
  return count;
}

/** The 32-byte digest of `count` padded 64-byte blocks at `message`; `state` is 32 bytes of scratch. */
export function digestPadded(message: usize, count: u32, out: usize, state: usize): void {
  v128.store(state, v128.load(INITIAL));
  v128.store(state, v128.load(INITIAL, 16), 16);
  for (let i: u32 = 0; i < count; i++) compress(state, message + (<usize>i << 6));
  v128.store(out, swapWords(v128.load(state)));
  v128.store(out, swapWords(v128.load(state, 16)), 16);
}
