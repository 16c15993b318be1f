// SHA-256 of four messages at once, one in each 32-bit lane of a vector: the rounds of sha256.ts over v128. Costs about
// twice one scalar compression, so it pays from three messages on.
import { INITIAL, K, swapWords } from './sha256';

// @ts-ignore: decorator
@inline
function add(a: v128, b: v128): v128 {
  return i32x4.add(a, b);
}

// @ts-ignore: decorator
@inline
function xor3(a: v128, b: v128, c: v128): v128 {
  return v128.xor(v128.xor(a, b), c);
}

// @ts-ignore: decorator
@inline
function ror(x: v128, n: i32): v128 {
  return v128.or(i32x4.shr_u(x, n), i32x4.shl(x, 32 - n));
}

// @ts-ignore: decorator
@inline
function t1(h: v128, e: v128, f: v128, g: v128, k: usize, w: v128): v128 {
  const sum = add(h, add(w, v128.load_splat<u32>(k)));
  return add(sum, add(xor3(ror(e, 6), ror(e, 11), ror(e, 25)), v128.xor(g, v128.and(e, v128.xor(f, g)))));
}

// @ts-ignore: decorator
@inline
function t2(t: v128, a: v128, b: v128, ab: v128, bc: v128): v128 {
  return add(t, add(xor3(ror(a, 2), ror(a, 13), ror(a, 22)), v128.xor(v128.and(ab, bc), b)));
}

// @ts-ignore: decorator
@inline
function next(w: v128, w1: v128, w9: v128, w14: v128): v128 {
  const s0 = xor3(ror(w1, 7), ror(w1, 18), i32x4.shr_u(w1, 3));
  const s1 = xor3(ror(w14, 17), ror(w14, 19), i32x4.shr_u(w14, 10));
  return add(add(w, w9), add(s0, s1));
}

/** The initial state in every lane: eight vectors at `state`, one for each word. */
export function start4(state: usize): void {
  for (let i: usize = 0; i < 8; i++) v128.store(state + (i << 4), v128.load_splat<u32>(INITIAL + (i << 2)));
}

/** One compression of the 64 bytes at `p`, `p + stride`, … in lanes 0 to 3. */
export function compress4(state: usize, p: usize, stride: usize): void {
  const p1 = p + stride, p2 = p1 + stride, p3 = p2 + stride;
  let r0: v128, r1: v128, r2: v128, r3: v128, q0: v128, q1: v128, q2: v128, q3: v128;
  r0 = swapWords(v128.load(p)); r1 = swapWords(v128.load(p1)); r2 = swapWords(v128.load(p2)); r3 = swapWords(v128.load(p3));
  q0 = v128.shuffle<u32>(r0, r1, 0, 4, 1, 5); q1 = v128.shuffle<u32>(r2, r3, 0, 4, 1, 5);
  q2 = v128.shuffle<u32>(r0, r1, 2, 6, 3, 7); q3 = v128.shuffle<u32>(r2, r3, 2, 6, 3, 7);
  let w0 = v128.shuffle<u64>(q0, q1, 0, 2), w1 = v128.shuffle<u64>(q0, q1, 1, 3);
  let w2 = v128.shuffle<u64>(q2, q3, 0, 2), w3 = v128.shuffle<u64>(q2, q3, 1, 3);
  r0 = swapWords(v128.load(p, 16)); r1 = swapWords(v128.load(p1, 16)); r2 = swapWords(v128.load(p2, 16)); r3 = swapWords(v128.load(p3, 16));
  q0 = v128.shuffle<u32>(r0, r1, 0, 4, 1, 5); q1 = v128.shuffle<u32>(r2, r3, 0, 4, 1, 5);
  q2 = v128.shuffle<u32>(r0, r1, 2, 6, 3, 7); q3 = v128.shuffle<u32>(r2, r3, 2, 6, 3, 7);
  let w4 = v128.shuffle<u64>(q0, q1, 0, 2), w5 = v128.shuffle<u64>(q0, q1, 1, 3);
  let w6 = v128.shuffle<u64>(q2, q3, 0, 2), w7 = v128.shuffle<u64>(q2, q3, 1, 3);
  r0 = swapWords(v128.load(p, 32)); r1 = swapWords(v128.load(p1, 32)); r2 = swapWords(v128.load(p2, 32)); r3 = swapWords(v128.load(p3, 32));
  q0 = v128.shuffle<u32>(r0, r1, 0, 4, 1, 5); q1 = v128.shuffle<u32>(r2, r3, 0, 4, 1, 5);
  q2 = v128.shuffle<u32>(r0, r1, 2, 6, 3, 7); q3 = v128.shuffle<u32>(r2, r3, 2, 6, 3, 7);
  let w8 = v128.shuffle<u64>(q0, q1, 0, 2), w9 = v128.shuffle<u64>(q0, q1, 1, 3);
  let w10 = v128.shuffle<u64>(q2, q3, 0, 2), w11 = v128.shuffle<u64>(q2, q3, 1, 3);
  r0 = swapWords(v128.load(p, 48)); r1 = swapWords(v128.load(p1, 48)); r2 = swapWords(v128.load(p2, 48)); r3 = swapWords(v128.load(p3, 48));
  q0 = v128.shuffle<u32>(r0, r1, 0, 4, 1, 5); q1 = v128.shuffle<u32>(r2, r3, 0, 4, 1, 5);
  q2 = v128.shuffle<u32>(r0, r1, 2, 6, 3, 7); q3 = v128.shuffle<u32>(r2, r3, 2, 6, 3, 7);
  let w12 = v128.shuffle<u64>(q0, q1, 0, 2), w13 = v128.shuffle<u64>(q0, q1, 1, 3);
  let w14 = v128.shuffle<u64>(q2, q3, 0, 2), w15 = v128.shuffle<u64>(q2, q3, 1, 3);
  let a = v128.load(state), b = v128.load(state, 16), c = v128.load(state, 32), d = v128.load(state, 48);
  let e = v128.load(state, 64), f = v128.load(state, 80), g = v128.load(state, 96), h = v128.load(state, 112);
  let x: v128, y = v128.xor(b, c);
  for (let k = K; ; k += 64) {
    h = t1(h, e, f, g, k, w0); d = add(d, h); x = v128.xor(a, b); h = t2(h, a, b, x, y);
    g = t1(g, d, e, f, k + 4, w1); c = add(c, g); y = v128.xor(h, a); g = t2(g, h, a, y, x);
    f = t1(f, c, d, e, k + 8, w2); b = add(b, f); x = v128.xor(g, h); f = t2(f, g, h, x, y);
    e = t1(e, b, c, d, k + 12, w3); a = add(a, e); y = v128.xor(f, g); e = t2(e, f, g, y, x);
    d = t1(d, a, b, c, k + 16, w4); h = add(h, d); x = v128.xor(e, f); d = t2(d, e, f, x, y);
    c = t1(c, h, a, b, k + 20, w5); g = add(g, c); y = v128.xor(d, e); c = t2(c, d, e, y, x);
    b = t1(b, g, h, a, k + 24, w6); f = add(f, b); x = v128.xor(c, d); b = t2(b, c, d, x, y);
    a = t1(a, f, g, h, k + 28, w7); e = add(e, a); y = v128.xor(b, c); a = t2(a, b, c, y, x);
    h = t1(h, e, f, g, k + 32, w8); d = add(d, h); x = v128.xor(a, b); h = t2(h, a, b, x, y);
    g = t1(g, d, e, f, k + 36, w9); c = add(c, g); y = v128.xor(h, a); g = t2(g, h, a, y, x);
    f = t1(f, c, d, e, k + 40, w10); b = add(b, f); x = v128.xor(g, h); f = t2(f, g, h, x, y);
    e = t1(e, b, c, d, k + 44, w11); a = add(a, e); y = v128.xor(f, g); e = t2(e, f, g, y, x);
    d = t1(d, a, b, c, k + 48, w12); h = add(h, d); x = v128.xor(e, f); d = t2(d, e, f, x, y);
    c = t1(c, h, a, b, k + 52, w13); g = add(g, c); y = v128.xor(d, e); c = t2(c, d, e, y, x);
    b = t1(b, g, h, a, k + 56, w14); f = add(f, b); x = v128.xor(c, d); b = t2(b, c, d, x, y);
    a = t1(a, f, g, h, k + 60, w15); e = add(e, a); y = v128.xor(b, c); a = t2(a, b, c, y, x);
    if (k == K + 192) break;
    w0 = next(w0, w1, w9, w14); w1 = next(w1, w2, w10, w15); w2 = next(w2, w3, w11, w0); w3 = next(w3, w4, w12, w1);
    w4 = next(w4, w5, w13, w2); w5 = next(w5, w6, w14, w3); w6 = next(w6, w7, w15, w4); w7 = next(w7, w8, w0, w5);
    w8 = next(w8, w9, w1, w6); w9 = next(w9, w10, w2, w7); w10 = next(w10, w11, w3, w8); w11 = next(w11, w12, w4, w9);
    w12 = next(w12, w13, w5, w10); w13 = next(w13, w14, w6, w11); w14 = next(w14, w15, w7, w12); w15 = next(w15, w0, w8, w13);
  }
  v128.store(state, add(v128.load(state), a));
  v128.store(state, add(v128.load(state, 16), b), 16);
  v128.store(state, add(v128.load(state, 32), c), 32);
  v128.store(state, add(v128.load(state, 48), d), 48);
  v128.store(state, add(v128.load(state, 64), e), 64);
  v128.store(state, add(v128.load(state, 80), f), 80);
  v128.store(state, add(v128.load(state, 96), g), 96);
  v128.store(state, add(v128.load(state, 112), h), 112);
}

/** The digests of all lanes, 32 bytes each, at `out`. */
export function digest4(state: usize, out: usize): void {
  for (let half: usize = 0; half < 32; half += 16, state += 64) {
    const a = v128.load(state), b = v128.load(state, 16), c = v128.load(state, 32), d = v128.load(state, 48);
    const p = swapWords(v128.shuffle<u32>(a, b, 0, 4, 1, 5)), q = swapWords(v128.shuffle<u32>(c, d, 0, 4, 1, 5));
    const r = swapWords(v128.shuffle<u32>(a, b, 2, 6, 3, 7)), s = swapWords(v128.shuffle<u32>(c, d, 2, 6, 3, 7));
    v128.store(out + half, v128.shuffle<u64>(p, q, 0, 2));
    v128.store(out + half, v128.shuffle<u64>(p, q, 1, 3), 32);
    v128.store(out + half, v128.shuffle<u64>(r, s, 0, 2), 64);
    v128.store(out + half, v128.shuffle<u64>(r, s, 1, 3), 96);
  }
}
