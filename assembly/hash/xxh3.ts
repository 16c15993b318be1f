// XXH3 of 64 and 128 bits, every length, any seed (xxHash 0.8,
// https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md). Names follow the specification. Inputs above 240
// bytes run through eight accumulators in four vectors, with a secret that depends on the seed: `makeSecret` derives it
// once, the caller keeps it and passes it in.

/** The default secret. */
export const SECRET: usize = memory.data<u8>([
  0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
  0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
  0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
  0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
  0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
  0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
  0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
  0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
  0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
  0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
  0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
  0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
]);
export const SECRET_SIZE: usize = 192;
const STRIPE: usize = 64;
const PRIME32_1: u32 = 0x9e3779b1;
const PRIME32_2: u32 = 0x85ebca77;
const PRIME32_3: u32 = 0xc2b2ae3d;
const PRIME64_1: u64 = 0x9e3779b185ebca87;
const PRIME64_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME64_3: u64 = 0x165667b19e3779f9;
const PRIME64_4: u64 = 0x85ebca77c2b2ae63;
const PRIME64_5: u64 = 0x27d4eb2f165667c5;
const PRIME_MX1: u64 = 0x165667919e3779f9;
const PRIME_MX2: u64 = 0x9fb21c651e98df25;

/** High half of the 128-bit product. */
// @ts-ignore: decorator
@inline
function mulHigh(a: u64, b: u64): u64 {
  const al = a & 0xffffffff, ah = a >>> 32, bl = b & 0xffffffff, bh = b >>> 32;
  const ll = al * bl, hl = ah * bl, lh = al * bh;
  const cross = (ll >>> 32) + (hl & 0xffffffff) + lh;
  return (hl >>> 32) + (cross >>> 32) + ah * bh;
}

/** Both halves of the product, xored. */
// @ts-ignore: decorator
@inline
function fold(a: u64, b: u64): u64 {
  return (a * b) ^ mulHigh(a, b);
}

// @ts-ignore: decorator
@inline
function avalanche(h: u64): u64 {
  h ^= h >>> 37;
  h *= PRIME_MX1;
  return h ^ (h >>> 32);
}

function avalancheXxh64(h: u64): u64 {
  h ^= h >>> 33;
  h *= PRIME64_2;
  h ^= h >>> 29;
  h *= PRIME64_3;
  return h ^ (h >>> 32);
}

/** Two words of the secret at offset `at`, xored. */
// @ts-ignore: decorator
@inline
function flip(at: usize): u64 {
  return load<u64>(SECRET + at) ^ load<u64>(SECRET + at + 8);
}

// @ts-ignore: decorator
@inline
function mix16(p: usize, at: usize, seed: u64): u64 {
  return fold(load<u64>(p) ^ (load<u64>(SECRET + at) + seed), load<u64>(p, 8) ^ (load<u64>(SECRET + at, 8) - seed));
}

// @ts-ignore: decorator
@inline
function sum16(p: usize): u64 {
  return load<u64>(p) + load<u64>(p, 8);
}

// @ts-ignore: decorator
@inline
function seedFor4to8(seed: u64): u64 {
  return seed ^ ((<u64>bswap(<u32>seed)) << 32);
}

/** Bytes of an input of one to three bytes, with its length, in one word. */
// @ts-ignore: decorator
@inline
function combine1to3(p: usize, n: usize): u32 {
  return (<u32>load<u8>(p) << 16) | (<u32>load<u8>(p + (n >>> 1)) << 24) | load<u8>(p + n - 1) | (<u32>n << 8);
}

/** Writes the secret for `seed` at `out`. */
export function makeSecret(seed: u64, out: usize): void {
  for (let i: usize = 0; i < SECRET_SIZE; i += 16) {
    store<u64>(out + i, load<u64>(SECRET + i) + seed);
    store<u64>(out + i, load<u64>(SECRET + i, 8) - seed, 8);
  }
}

/** XXH3 of 64 bits. `secret` is what makeSecret wrote for `seed` (SECRET for seed 0); `acc` is 64 bytes of scratch. */
export function xxh3_64(p: usize, n: usize, seed: u64, secret: usize, acc: usize): u64 {
  if (n > 240) {
    accumulate(p, n, secret, acc);
    return merge(acc, secret + 11, <u64>n * PRIME64_1);
  }
  if (n > 16) {
    let h = <u64>n * PRIME64_1;
    if (n <= 128) {
      for (let i: usize = ((n - 1) >>> 5) << 4, back = p + n - 16 - i; ; i -= 16, back += 16) {
        h += mix16(p + i, i << 1, seed) + mix16(back, (i << 1) + 16, seed);
        if (i == 0) return avalanche(h);
      }
    }
    let i: usize = 0;
    for (; i < 128; i += 16) h += mix16(p + i, i, seed);
    h = avalanche(h);
    for (; i + 16 <= n; i += 16) h += mix16(p + i, i - 125, seed);
    return avalanche(h + mix16(p + n - 16, 119, seed));
  }
  if (n > 8) {
    const lo = load<u64>(p) ^ (flip(24) + seed), hi = load<u64>(p + n - 8) ^ (flip(40) - seed);
    return avalanche(<u64>n + bswap(lo) + hi + fold(lo, hi));
  }
  if (n > 3) {
    const word = load<u32>(p + n - 4) + (<u64>load<u32>(p) << 32);
    let h = word ^ (flip(8) - seedFor4to8(seed));
    h ^= rotl(h, 49) ^ rotl(h, 24);
    h *= PRIME_MX2;
    h ^= (h >>> 35) + <u64>n;
    h *= PRIME_MX2;
    return h ^ (h >>> 28);
  }
  if (n > 0) {
    return avalancheXxh64(<u64>combine1to3(p, n) ^ (<u64>(load<u32>(SECRET) ^ load<u32>(SECRET, 4)) + seed));
  }
  return avalancheXxh64(seed ^ flip(56));
}

/** Writes a 128-bit digest in its canonical form, high half first, big-endian. */
// @ts-ignore: decorator
@inline
function store128(out: usize, lo: u64, hi: u64): void {
  const v = i64x2(lo, hi);
  v128.store(out, v128.shuffle<u8>(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
}

// @ts-ignore: decorator
@inline
function finish128(lo: u64, hi: u64, n: usize, seed: u64, out: usize): void {
  store128(out, avalanche(lo + hi), 0 - avalanche(lo * PRIME64_1 + hi * PRIME64_4 + (<u64>n - seed) * PRIME64_2));
}

/** XXH3 of 128 bits, 16 bytes at `out`. Arguments as in xxh3_64. */
// @ts-ignore: decorator
@inline
export function xxh3_128(p: usize, n: usize, seed: u64, secret: usize, acc: usize, out: usize): void {
  if (n > 16 && n <= 128) {
    let lo = <u64>n * PRIME64_1, hi: u64 = 0;
    const end = p + n;
    if (n > 32) {
      if (n > 64) {
        if (n > 96) {
          lo = (lo + mix16(p + 48, 96, seed)) ^ sum16(end - 64);
          hi = (hi + mix16(end - 64, 112, seed)) ^ sum16(p + 48);
        }
        lo = (lo + mix16(p + 32, 64, seed)) ^ sum16(end - 48);
        hi = (hi + mix16(end - 48, 80, seed)) ^ sum16(p + 32);
      }
      lo = (lo + mix16(p + 16, 32, seed)) ^ sum16(end - 32);
      hi = (hi + mix16(end - 32, 48, seed)) ^ sum16(p + 16);
    }
    lo = (lo + mix16(p, 0, seed)) ^ sum16(end - 16);
    hi = (hi + mix16(end - 16, 16, seed)) ^ sum16(p);
    finish128(lo, hi, n, seed, out);
  } else if (n > 240) {
    accumulate(p, n, secret, acc);
    const size = <u64>n;
    const lo = merge(acc, secret + 11, size * PRIME64_1);
    store128(out, lo, merge(acc, secret + SECRET_SIZE - 75, ~(size * PRIME64_2)));
  } else if (n > 128) {
    middle128(p, n, seed, out);
  } else {
    small128(p, n, seed, out);
  }
}

/** 129 to 240 bytes. */
function middle128(p: usize, n: usize, seed: u64, out: usize): void {
  let lo = <u64>n * PRIME64_1, hi: u64 = 0, at: usize = 0, i: usize = 0;
  for (; i + 32 <= n; i += 32) {
    if (i == 128) {
      lo = avalanche(lo);
      hi = avalanche(hi);
      at = 3;
    }
    const a = p + i, b = p + i + 16;
    lo = (lo + mix16(a, at, seed)) ^ sum16(b);
    hi = (hi + mix16(b, at + 16, seed)) ^ sum16(a);
    at += 32;
  }
  if (i == 128) {
    lo = avalanche(lo);
    hi = avalanche(hi);
  }
  const a = p + n - 16, b = p + n - 32;
  lo = (lo + mix16(a, 103, 0 - seed)) ^ sum16(b);
  hi = (hi + mix16(b, 119, 0 - seed)) ^ sum16(a);
  finish128(lo, hi, n, seed, out);
}

/** Up to 16 bytes. */
function small128(p: usize, n: usize, seed: u64, out: usize): void {
  if (n > 8) {
    const last = load<u64>(p + n - 8), key = load<u64>(p) ^ last ^ (flip(32) - seed);
    const lo = key * PRIME64_1 + (<u64>(n - 1) << 54);
    const input = last ^ (flip(48) + seed);
    const hi = mulHigh(key, PRIME64_1) + input + (input & 0xffffffff) * <u64>(PRIME32_2 - 1);
    const mixed = lo ^ bswap(hi);
    store128(out, avalanche(mixed * PRIME64_2), avalanche(mulHigh(mixed, PRIME64_2) + hi * PRIME64_2));
  } else if (n > 3) {
    const word = load<u32>(p) + (<u64>load<u32>(p + n - 4) << 32);
    const key = word ^ (flip(16) + seedFor4to8(seed)), factor = PRIME64_1 + (<u64>n << 2);
    let lo = key * factor, hi = mulHigh(key, factor);
    hi += lo << 1;
    lo ^= hi >>> 3;
    lo ^= lo >>> 35;
    lo *= PRIME_MX2;
    store128(out, lo ^ (lo >>> 28), avalanche(hi));
  } else if (n > 0) {
    const word = combine1to3(p, n);
    const lo = <u64>word ^ (<u64>(load<u32>(SECRET) ^ load<u32>(SECRET, 4)) + seed);
    const hi = <u64>rotl(bswap(word), 13) ^ (<u64>(load<u32>(SECRET, 8) ^ load<u32>(SECRET, 12)) - seed);
    store128(out, avalancheXxh64(lo), avalancheXxh64(hi));
  } else {
    store128(out, avalancheXxh64(seed ^ flip(64)), avalancheXxh64(seed ^ flip(80)));
  }
}

/** One vector of a stripe: acc[i ^ 1] += data[i]; acc[i] += low(data[i] ^ key[i]) * high(data[i] ^ key[i]). */
// @ts-ignore: decorator
@inline
function step(acc: v128, p: usize, key: usize): v128 {
  const data = v128.load(p), mixed = v128.xor(data, v128.load(key));
  const low = v128.shuffle<u32>(mixed, mixed, 0, 2, 0, 2), high = v128.shuffle<u32>(mixed, mixed, 1, 3, 1, 3);
  return i64x2.add(i64x2.add(acc, v128.shuffle<u64>(data, data, 1, 0)), i64x2.extmul_low_i32x4_u(low, high));
}

// @ts-ignore: decorator
@inline
function scramble(acc: v128, key: usize): v128 {
  const mixed = v128.xor(v128.xor(acc, i64x2.shr_u(acc, 47)), v128.load(key));
  return i64x2.mul(mixed, i64x2.splat(PRIME32_1));
}

/** Runs more than 240 bytes through the accumulators and leaves them at `acc`. */
function accumulate(p: usize, n: usize, secret: usize, acc: usize): void {
  let a = i64x2(PRIME32_3, PRIME64_1), b = i64x2(PRIME64_2, PRIME64_3);
  let c = i64x2(PRIME64_4, PRIME32_2), d = i64x2(PRIME64_5, PRIME32_1);
  const last = p + n - STRIPE, end = secret + SECRET_SIZE - STRIPE;
  for (let key = secret; p < last; p += STRIPE) {
    a = step(a, p, key);
    b = step(b, p + 16, key + 16);
    c = step(c, p + 32, key + 32);
    d = step(d, p + 48, key + 48);
    key += 8;
    if (key == end) {
      a = scramble(a, end);
      b = scramble(b, end + 16);
      c = scramble(c, end + 32);
      d = scramble(d, end + 48);
      key = secret;
    }
  }
  // The last 64 bytes always count once more, whatever they overlap.
  const key = end - 7;
  v128.store(acc, step(a, last, key));
  v128.store(acc, step(b, last + 16, key + 16), 16);
  v128.store(acc, step(c, last + 32, key + 32), 32);
  v128.store(acc, step(d, last + 48, key + 48), 48);
}

/** The accumulators folded into one word. */
function merge(acc: usize, secret: usize, start: u64): u64 {
  for (let i: usize = 0; i < 64; i += 16) {
    start += fold(load<u64>(acc + i) ^ load<u64>(secret + i), load<u64>(acc + i, 8) ^ load<u64>(secret + i, 8));
  }
  return avalanche(start);
}
