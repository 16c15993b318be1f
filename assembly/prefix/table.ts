// The table that finds a block by its key: extendible hashing. The top bits of a key's hash choose, through a
// directory, a segment of 4,096 slots; within it, linear probing. A segment that fills up is replaced by two, so the
// table grows without ever stalling for a rehash of everything, and removal shifts back, so there are no tombstones.
//
// A slot is a block id (28 bits) under a tag of 4 more hash bits, which spares most looks at keys that differ. Keys
// are hashes already; the multiplication by a random odd number keeps chosen keys from crowding one segment.
import { HEADER } from '../memory';
import { block, KEY, sameKey } from './blocks';
import {
  change,
  get,
  inside,
  MULTIPLIER,
  NO_MEMORY,
  publish,
  SEGMENT_FREE,
  set,
  TABLE_BITS,
  TABLE_DIR,
  take,
  WIDTH,
} from './header';

const SLOTS: u32 = 4096;
const FULL: u32 = 3072;
const MAX_BITS: u32 = 20;
// Behind its slots a segment has its count and its depth, the hash bits that its keys share.
const COUNT: usize = <usize>SLOTS << 2;
const DEPTH: usize = COUNT + 4;
const SEGMENT: u32 = <u32>COUNT + 16;
const ID: u32 = (1 << 28) - 1;

// @ts-ignore: decorator
@inline
function hash(key: usize): u64 {
  const low = load<u64>(key + get(WIDTH) - 8);
  return (low ^ (low >>> 32)) * load<u64>(HEADER + MULTIPLIER);
}

// @ts-ignore: decorator
@inline
function slotOf(hash: u64): u32 {
  return <u32>(hash >>> 20) & (SLOTS - 1);
}

// @ts-ignore: decorator
@inline
function tagged(hash: u64, id: u32): u32 {
  return id | (<u32>(hash >>> 16) << 28);
}

// @ts-ignore: decorator
@inline
function segmentOf(hash: u64): usize {
  const entry = inside(get(TABLE_DIR) + (<u32>(hash >>> (64 - <u64>get(TABLE_BITS))) << 2), 4);
  return inside(load<u32>(entry), SEGMENT);
}

/** Id of the block with this key, 0 when there is none. */
export function find(key: usize): u32 {
  const h = hash(key);
  const segment = segmentOf(h);
  const tag = tagged(h, 0);
  let slot = slotOf(h);
  for (let tries: u32 = 0; tries < SLOTS; tries++) {
    const value = load<u32>(segment + (slot << 2));
    if (value == 0) return 0;
    if ((value & ~ID) == tag && sameKey(block(value & ID) + KEY, key)) return value & ID;
    slot = (slot + 1) & (SLOTS - 1);
  }
  return 0;
}

/** Enters block `id` under its key: 0, or the id that has this key already, or NO_MEMORY. */
export function put(key: usize, id: u32): i32 {
  const h = hash(key);
  let segment = segmentOf(h);
  while (load<u32>(segment, COUNT) >= FULL) {
    const divided = divide(segment, h);
    if (divided == segment) break;
    if (!divided) return NO_MEMORY;
    segment = divided;
  }
  const count = load<u32>(segment, COUNT);
  if (count == SLOTS - 1) return NO_MEMORY;
  const value = tagged(h, id);
  let slot = slotOf(h);
  while (true) {
    const at = segment + (slot << 2);
    const other = load<u32>(at);
    if (other == 0) {
      store<u32>(at, value);
      store<u32>(segment, count + 1, COUNT);
      return 0;
    }
    if ((other ^ value) >>> 28 == 0 && sameKey(block(other & ID) + KEY, key)) return other & ID;
    slot = (slot + 1) & (SLOTS - 1);
  }
}

/** Takes block `id` out of the table and closes the gap. */
export function erase(id: u32): void {
  const h = hash(block(id) + KEY);
  const segment = segmentOf(h);
  let gap = slotOf(h);
  while ((load<u32>(segment + (gap << 2)) & ID) != id) gap = (gap + 1) & (SLOTS - 1);
  let slot = gap;
  while (true) {
    slot = (slot + 1) & (SLOTS - 1);
    const value = load<u32>(segment + (slot << 2));
    if (value == 0) break;
    const home = slotOf(hash(block(value & ID) + KEY));
    if (((slot - home) & (SLOTS - 1)) >= ((slot - gap) & (SLOTS - 1))) {
      store<u32>(segment + (gap << 2), value);
      gap = slot;
    }
  }
  store<u32>(segment + (gap << 2), 0);
  store<u32>(segment, load<u32>(segment, COUNT) - 1, COUNT);
}

function newSegment(depth: u32): usize {
  let segment: usize = get(SEGMENT_FREE);
  if (segment) {
    set(SEGMENT_FREE, load<u32>(segment));
    memory.fill(segment, 0, SEGMENT);
  } else {
    segment = take(SEGMENT);
    if (!segment) return 0;
  }
  store<u32>(segment, depth, DEPTH);
  return segment;
}

function freeSegment(segment: usize): void {
  store<u32>(segment, get(SEGMENT_FREE));
  set(SEGMENT_FREE, <u32>segment);
}

// Replaces a full segment by two. Both are complete before the directory names them; a reader still in the old one
// reads good data until it is used again, which is after the version has changed.
// Returns the one that `h` belongs to now, the same segment when the directory is at its limit, 0 without memory.
function divide(segment: usize, h: u64): usize {
  const depth = load<u32>(segment, DEPTH);
  if (depth == MAX_BITS) return segment;
  if (depth == get(TABLE_BITS) && !widen()) return 0;
  const zeros = newSegment(depth + 1);
  const ones = newSegment(depth + 1);
  if (!ones) {
    if (zeros) freeSegment(zeros);
    return 0;
  }
  const bit = 63 - <u64>depth;
  for (let slot: u32 = 0; slot < SLOTS; slot++) {
    const value = load<u32>(segment + (slot << 2));
    if (value == 0) continue;
    const moved = hash(block(value & ID) + KEY);
    const to = select<usize>(ones, zeros, (moved >>> bit) & 1);
    let free = slotOf(moved);
    while (load<u32>(to + (free << 2))) free = (free + 1) & (SLOTS - 1);
    store<u32>(to + (free << 2), value);
    store<u32>(to, load<u32>(to, COUNT) + 1, COUNT);
  }
  const each: u32 = 1 << (get(TABLE_BITS) - depth - 1);
  let entry = get(TABLE_DIR) + ((<u32>(h >>> (64 - <u64>depth)) << (get(TABLE_BITS) - depth)) << 2);
  change();
  for (let k: u32 = 0; k < each << 1; k++, entry += 4) store<u32>(entry, <u32>(k < each ? zeros : ones));
  publish();
  freeSegment(segment);
  return select<usize>(ones, zeros, (h >>> bit) & 1);
}

/** Doubles the directory. */
function widen(): bool {
  const bits = get(TABLE_BITS);
  const from: usize = get(TABLE_DIR);
  const to = take(4 << (bits + 1));
  if (!to) return false;
  for (let k: u32 = 0; k < <u32>1 << bits; k++) {
    const segment = load<u32>(from + (k << 2));
    store<u32>(to + (k << 3), segment);
    store<u32>(to + (k << 3), segment, 4);
  }
  change();
  set(TABLE_DIR, <u32>to);
  set(TABLE_BITS, bits + 1);
  publish();
  return true;
}

/** A directory of two segments: no depth is 0, so no shift is by 64. */
export function initTable(): bool {
  const dir = take(8);
  const zeros = newSegment(1);
  const ones = newSegment(1);
  if (!dir || !ones) return false;
  store<u32>(dir, zeros);
  store<u32>(dir, ones, 4);
  set(TABLE_DIR, <u32>dir);
  set(TABLE_BITS, 1);
  return true;
}
