// One digest of any bytes: NONE_HASH, and what users check their own implementations against.
import { digestPadded, pad } from './sha256';
import { makeSecret, SECRET_SIZE, xxh3_64, xxh3_128 } from './xxh3';

/**
 * Digest of `length` bytes at `p`, written at `out`. kind: 0 SHA-256 (32 bytes; the message is padded in place, so 80
 * bytes after it must be free), 1 XXH3-128 (16 bytes), 2 XXH3-64 (8 bytes, big-endian). `scratch`: 256 bytes.
 */
export function digest(kind: i32, p: usize, length: usize, seed: u64, out: usize, scratch: usize): void {
  if (kind == 0) return digestPadded(p, pad(p, length), out, scratch);
  makeSecret(seed, scratch);
  if (kind == 1) xxh3_128(p, length, seed, scratch, scratch + SECRET_SIZE, out);
  else store<u64>(out, bswap(xxh3_64(p, length, seed, scratch, scratch + SECRET_SIZE)));
}
