// Mooncake's rolling sequence hash: local = XXH3-64(the block's tokens as little-endian u32, seed); the first sequence
// hash is local[0], then seq[i] = XXH3-64(seq[i - 1] little-endian || local[i] little-endian, seed).
import { makeSecret, SECRET_SIZE, xxh3_64 } from './xxh3';

/**
 * Writes the sequence hashes of `blocks` blocks at `out`, eight bytes each, big-endian (the canonical form of XXH3).
 * `parent` is the hash, in the same form, of the block before; 0 where there is none. `scratch`: 320 bytes.
 */
export function sequenceHashes(
  tokens: usize,
  blocks: u32,
  blockSize: u32,
  seed: u64,
  parent: usize,
  out: usize,
  scratch: usize,
): void {
  const secret = scratch, acc = scratch + SECRET_SIZE, pair = acc + 64, size = <usize>blockSize << 2;
  makeSecret(seed, secret);
  let before: u64 = parent == 0 ? 0 : bswap(load<u64>(parent));
  for (let i: u32 = 0; i < blocks; i++) {
    let hash = xxh3_64(tokens, size, seed, secret, acc);
    if (i > 0 || parent != 0) {
      store<u64>(pair, before);
      store<u64>(pair, hash, 8);
      hash = xxh3_64(pair, 16, seed, secret, acc);
    }
    store<u64>(out, bswap(hash));
    before = hash;
    tokens += size;
    out += 8;
  }
}
