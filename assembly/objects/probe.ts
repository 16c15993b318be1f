// A key taken apart. A key of an inference engine is a hash in hexadecimal digits within a text that a great many keys
// share (`model@tp_rank:0@…@<64 digits>`, `<64 digits>_0_k`), so what is kept of it is
//
//   the tail       the last run of at least 32 lower-case hex digits (at most 64 of them, an even number), as bytes
//   the template   the text before and behind it, kept once for all keys that have it (templates.ts)
//
// A key without such a run is its own tail as it is, if it has at most 32 bytes; a longer one is cut behind the last
// '@' or '/' if at most 32 bytes follow; any other lies as a whole in a text of its own. The key alone decides, so equal
// keys are taken apart equally, and putting the parts together gives the key back byte for byte.
//
// A probe is a key taken apart, 96 bytes:
//
//   0  u64  hash of all         16  u32  template, 0 when it is unknown   64  u32  bytes before the tail
//   8  u64  hash of template    20  u32  form                             68  u32  where the bytes behind it are
//                               24  u32  where the key is                 72  u32  how many they are
//                               28  u32  its length                       76  u32  an object that may have this key
//                               32       tail, 32 bytes, zeros behind it
import { xxh3_64 } from '../hash/xxh3';
import { HEADER } from '../memory';
import { ACC, SECRET, SEED } from './header';

export const PROBE: usize = 96;
export const TEMPLATE_HASH: usize = 8;
export const TEMPLATE_OF: usize = 16;
export const FORM: usize = 20;
export const KEY: usize = 24;
export const LENGTH: usize = 28;
export const TAIL: usize = 32;
export const BEFORE: usize = 64;
export const BEHIND: usize = 68;
export const BEHIND_LENGTH: usize = 72;
export const CANDIDATE: usize = 76;

// A form: bytes of the tail, and whether they stand for hex digits or the tail is a text of its own.
export const HEX: u32 = 0x80;
export const OWN_TEXT: u32 = 0x40;
export const TAIL_BYTES: u32 = 0x3f;

const MOST: usize = 32;
const LEAST_DIGITS: usize = 32;
const MOST_DIGITS: usize = 64;
export const PRIME: u64 = 0x9e3779b97f4a7c15;

/** Takes a key apart, but for its hashes and its template. */
export function cut(key: usize, length: usize, probe: usize): void {
  store<u32>(probe, <u32>key, KEY);
  store<u32>(probe, <u32>length, LENGTH);
  for (let end = length; end >= LEAST_DIGITS; ) {
    const run = hexRun(key, end);
    if (run >= LEAST_DIGITS) {
      const digits = run & ~1;
      decode(key + end - digits, digits, probe + TAIL);
      setParts(probe, HEX | <u32>(digits >>> 1), end - digits, key + end, length - end);
      return;
    }
    end = end > run ? end - run - 1 : 0;
  }
  const before: usize = length <= MOST ? <usize>0 : separator(key, length);
  const tail = length - before;
  v128.store(probe, i64x2.splat(0), TAIL);
  v128.store(probe, i64x2.splat(0), TAIL + 16);
  if (tail <= MOST) {
    memory.copy(probe + TAIL, key + before, tail);
    setParts(probe, <u32>tail, before, 0, 0);
  } else {
    setParts(probe, OWN_TEXT, 0, 0, 0);
  }
}

// @ts-ignore: decorator
@inline
function setParts(probe: usize, form: u32, before: usize, behind: usize, behindLength: usize): void {
  store<u32>(probe, form, FORM);
  store<u32>(probe, <u32>before, BEFORE);
  store<u32>(probe, <u32>behind, BEHIND);
  store<u32>(probe, <u32>behindLength, BEHIND_LENGTH);
}

/** Hex digits directly before offset `end`, as far as 64. */
// @ts-ignore: decorator
@inline
function hexRun(key: usize, end: usize): usize {
  let run: usize = 0;
  while (run < MOST_DIGITS) {
    // May begin before the key: the window lies behind other memory.
    const v = v128.load(key + end - run - 16);
    const digits = i8x16.le_u(i8x16.sub(v, i8x16.splat(0x30)), i8x16.splat(9));
    const letters = i8x16.le_u(i8x16.sub(v, i8x16.splat(0x61)), i8x16.splat(5));
    const not = ~(<u32>i8x16.bitmask(v128.or(digits, letters)) << 16);
    const here = <usize>clz(not);
    run += here;
    if (here < 16) break;
  }
  return min(run, min(end, MOST_DIGITS));
}

/** Writes the bytes of an even number of digits, at most 64, and zeros behind them to 32. */
function decode(from: usize, digits: usize, to: usize): void {
  for (let k: usize = 0; k < MOST_DIGITS; k += 16, to += 8) {
    const v = v128.load(from + k);
    const letter = v128.and(i8x16.gt_u(v, i8x16.splat(0x39)), i8x16.splat(9));
    const nibbles = i8x16.add(v128.and(v, i8x16.splat(15)), letter);
    const pairs = v128.or(i16x8.shl(v128.and(nibbles, i16x8.splat(15)), 4), i16x8.shr_u(nibbles, 8));
    const bytes = i64x2.extract_lane(i8x16.narrow_i16x8_u(pairs, pairs), 0);
    const left = digits > k ? digits - k : 0;
    store<u64>(to, left >= 16 ? bytes : bytes & ((<u64>1 << (<u64>left << 2)) - 1));
  }
}

/** Writes 64 digits, of which the first 2n are those of the n bytes. */
export function encode(from: usize, to: usize): void {
  const alphabet = i8x16(48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 97, 98, 99, 100, 101, 102);
  for (let k: usize = 0; k < MOST; k += 8) {
    const bytes = i16x8.extend_low_i8x16_u(i64x2.splat(load<u64>(from + k)));
    const low = v128.and(bytes, i16x8.splat(15));
    const nibbles = v128.or(i16x8.shr_u(bytes, 4), i16x8.shl(low, 8));
    v128.store(to + (k << 1), v128.swizzle(alphabet, nibbles));
  }
}

/** Where a long key is cut: behind the last separator within reach, or 0. */
function separator(key: usize, length: usize): usize {
  for (let at = length - 1; at >= length - MOST; at--) {
    const before = load<u8>(key + at - 1);
    if (before == 0x40 || before == 0x2f) return at;
  }
  return 0;
}

// XXH3 with a seed of the moment up to 240 bytes. A longer input needs a secret made for its seed: it has the table's.
function hash(bytes: usize, length: usize, seed: u64): u64 {
  const secret = HEADER + SECRET;
  if (length <= 240) return xxh3_64(bytes, length, seed, secret, HEADER + ACC);
  const h = (xxh3_64(bytes, length, load<u64>(HEADER + SEED), secret, HEADER + ACC) ^ seed) * PRIME;
  return h ^ (h >>> 32);
}

/** Hash of a probe's template for a tenant. */
export function hashTemplate(probe: usize, tenant: u32): u64 {
  const seed = load<u64>(HEADER + SEED) ^ ((<u64>tenant + 1) * PRIME);
  const h = hash(load<u32>(probe, KEY), load<u32>(probe, BEFORE), seed);
  const behind: usize = load<u32>(probe, BEHIND_LENGTH);
  return behind ? hash(load<u32>(probe, BEHIND), behind, h) : h;
}

/** Hash of a whole key, from its template's. The low half serves the table, the high one chooses the shard. */
export function hashKey(probe: usize, template: u64): u64 {
  const form = load<u32>(probe, FORM);
  if (form == OWN_TEXT) return hash(load<u32>(probe, KEY), load<u32>(probe, LENGTH), template);
  return hash(probe + TAIL, form & TAIL_BYTES, template);
}
