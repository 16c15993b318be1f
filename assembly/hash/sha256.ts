// SHA-256 (FIPS 180-4), one message at a time. Sixteen rounds are written out and run four times: unrolling all 64
// gains nothing measurable and costs four times the code. Words are read big-endian by a byte shuffle, so messages lie in
// memory as they are.

/** Round constants: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
export const K: usize = memory.data<u32>([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
  0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
  0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
  0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
  0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
  0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);
/** Initial state: the same of the square roots of the first eight primes. */
export const INITIAL: usize = memory.data<u32>([
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
]);

/** Bytes of each 32-bit word in the other order. */
// @ts-ignore: decorator
@inline
export function swapWords(x: v128): v128 {
  return v128.shuffle<u8>(x, x, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
}

/** What a round adds to h before d takes it: Σ1(e) + Ch(e, f, g) + K + W. */
// @ts-ignore: decorator
@inline
function t1(e: u32, f: u32, g: u32, k: u32, w: u32): u32 {
  return (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + k + w;
}

/** Σ0(a) + Maj(a, b, c), with ab = a ^ b and bc = b ^ c, which was the ab of the round before. */
// @ts-ignore: decorator
@inline
function t2(a: u32, b: u32, ab: u32, bc: u32): u32 {
  return (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((ab & bc) ^ b);
}

/** What the schedule adds to the word of 16 rounds ago: σ0(w1) + w9 + σ1(w14). */
// @ts-ignore: decorator
@inline
function next(w1: u32, w9: u32, w14: u32): u32 {
  return (rotr(w1, 7) ^ rotr(w1, 18) ^ (w1 >>> 3)) + w9 + (rotr(w14, 17) ^ rotr(w14, 19) ^ (w14 >>> 10));
}

/** One compression: the 64 message bytes at `p` into the eight words at `state`. */
function compress(state: usize, p: usize): void {
  const m0 = swapWords(v128.load(p)), m1 = swapWords(v128.load(p, 16));
  const m2 = swapWords(v128.load(p, 32)), m3 = swapWords(v128.load(p, 48));
  let w0: u32 = i32x4.extract_lane(m0, 0), w1: u32 = i32x4.extract_lane(m0, 1);
  let w2: u32 = i32x4.extract_lane(m0, 2), w3: u32 = i32x4.extract_lane(m0, 3);
  let w4: u32 = i32x4.extract_lane(m1, 0), w5: u32 = i32x4.extract_lane(m1, 1);
  let w6: u32 = i32x4.extract_lane(m1, 2), w7: u32 = i32x4.extract_lane(m1, 3);
  let w8: u32 = i32x4.extract_lane(m2, 0), w9: u32 = i32x4.extract_lane(m2, 1);
  let w10: u32 = i32x4.extract_lane(m2, 2), w11: u32 = i32x4.extract_lane(m2, 3);
  let w12: u32 = i32x4.extract_lane(m3, 0), w13: u32 = i32x4.extract_lane(m3, 1);
  let w14: u32 = i32x4.extract_lane(m3, 2), w15: u32 = i32x4.extract_lane(m3, 3);
  let a = load<u32>(state), b = load<u32>(state, 4), c = load<u32>(state, 8), d = load<u32>(state, 12);
  let e = load<u32>(state, 16), f = load<u32>(state, 20), g = load<u32>(state, 24), h = load<u32>(state, 28);
  let x: u32, y: u32 = b ^ c;
  for (let k = K; ; k += 64) {
    h += t1(e, f, g, load<u32>(k), w0); d += h; x = a ^ b; h += t2(a, b, x, y);
    g += t1(d, e, f, load<u32>(k, 4), w1); c += g; y = h ^ a; g += t2(h, a, y, x);
    f += t1(c, d, e, load<u32>(k, 8), w2); b += f; x = g ^ h; f += t2(g, h, x, y);
    e += t1(b, c, d, load<u32>(k, 12), w3); a += e; y = f ^ g; e += t2(f, g, y, x);
    d += t1(a, b, c, load<u32>(k, 16), w4); h += d; x = e ^ f; d += t2(e, f, x, y);
    c += t1(h, a, b, load<u32>(k, 20), w5); g += c; y = d ^ e; c += t2(d, e, y, x);
    b += t1(g, h, a, load<u32>(k, 24), w6); f += b; x = c ^ d; b += t2(c, d, x, y);
    a += t1(f, g, h, load<u32>(k, 28), w7); e += a; y = b ^ c; a += t2(b, c, y, x);
    h += t1(e, f, g, load<u32>(k, 32), w8); d += h; x = a ^ b; h += t2(a, b, x, y);
    g += t1(d, e, f, load<u32>(k, 36), w9); c += g; y = h ^ a; g += t2(h, a, y, x);
    f += t1(c, d, e, load<u32>(k, 40), w10); b += f; x = g ^ h; f += t2(g, h, x, y);
    e += t1(b, c, d, load<u32>(k, 44), w11); a += e; y = f ^ g; e += t2(f, g, y, x);
    d += t1(a, b, c, load<u32>(k, 48), w12); h += d; x = e ^ f; d += t2(e, f, x, y);
    c += t1(h, a, b, load<u32>(k, 52), w13); g += c; y = d ^ e; c += t2(d, e, y, x);
    b += t1(g, h, a, load<u32>(k, 56), w14); f += b; x = c ^ d; b += t2(c, d, x, y);
    a += t1(f, g, h, load<u32>(k, 60), w15); e += a; y = b ^ c; a += t2(b, c, y, x);
    if (k == K + 192) break;
    w0 += next(w1, w9, w14); w1 += next(w2, w10, w15); w2 += next(w3, w11, w0); w3 += next(w4, w12, w1);
    w4 += next(w5, w13, w2); w5 += next(w6, w14, w3); w6 += next(w7, w15, w4); w7 += next(w8, w0, w5);
    w8 += next(w9, w1, w6); w9 += next(w10, w2, w7); w10 += next(w11, w3, w8); w11 += next(w12, w4, w9);
    w12 += next(w13, w5, w10); w13 += next(w14, w6, w11); w14 += next(w15, w7, w12); w15 += next(w0, w8, w13);
  }
  store<u32>(state, load<u32>(state) + a);
  store<u32>(state, load<u32>(state, 4) + b, 4);
  store<u32>(state, load<u32>(state, 8) + c, 8);
  store<u32>(state, load<u32>(state, 12) + d, 12);
  store<u32>(state, load<u32>(state, 16) + e, 16);
  store<u32>(state, load<u32>(state, 20) + f, 20);
  store<u32>(state, load<u32>(state, 24) + g, 24);
  store<u32>(state, load<u32>(state, 28) + h, 28);
}

/**
 * Writes the padding after the `length` bytes at `message` (up to 72 bytes, and zeros up to 80 beyond its end) and
 * returns how many 64-byte compressions the padded message takes.
 */
// @ts-ignore: decorator
@inline
export function pad(message: usize, length: usize): u32 {
  const p = message + length, zero = i64x2.splat(0);
  v128.store(p, i64x2(0x80, 0));
  v128.store(p, zero, 16); v128.store(p, zero, 32); v128.store(p, zero, 48); v128.store(p, zero, 64);
  const count = <u32>((length + 72) >>> 6);
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
