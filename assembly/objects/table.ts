// Extendible hashing from a hash to a cell, for objects and for templates. The top bits of a hash choose, through a
// directory, a segment of 4,096 slots; within it, linear probing from the place that the low bits say. A segment that
// fills up is divided in two, so a table grows without ever stalling for a rehash of everything, and removal shifts
// back, so there are no tombstones. A slot is a cell and 32 bits of its hash: division and removal look at no cell, and
// a search hardly ever at a wrong one. Which of the cells with a hash is meant, the caller says.
import { HEADER } from '../memory';
import { get, MOVES, SEGMENT_NEXT, SEGMENTS, SEGMENTS_LEFT, set, takeArea, takeDirectory } from './header';

const SLOTS: u32 = 4096;
const LAST_SLOT: u32 = SLOTS - 1;
const FULL: u32 = 3584;
/** What the area of a directory holds: far more segments than the memory. */
const MAX_BITS: u32 = 17;
// Behind its slots a segment has its count and its depth, the hash bits that its cells share.
const COUNT: usize = <usize>SLOTS << 3;
const DEPTH: usize = COUNT + 4;
const SEGMENT: u32 = <u32>COUNT + 64;
const SEGMENTS_OF_AREA: u32 = 15;

/** No slot. */
export const NONE: u32 = 0xffff_ffff;

// Fields of a table's header.
const BITS: usize = 4;
const ENTRIES: usize = 8;

// @ts-ignore: decorator
@inline
export function segmentOf(table: usize, h: u32): usize {
  const bits = load<u32>(HEADER + table, BITS);
  return load<u32>(<usize>load<u32>(HEADER + table) + ((h >>> (32 - bits)) << 2));
}

/** Address of a slot, which begins with its cell. */
// @ts-ignore: decorator
@inline
export function slotAt(segment: usize, slot: u32): usize {
  return segment + ((slot & LAST_SLOT) << 3);
}

/** The first slot from `slot` on whose hash is `h`, or NONE. */
// @ts-ignore: decorator
@inline
export function search(segment: usize, slot: u32, h: u32): u32 {
  for (; ; slot++) {
    const value = load<u64>(slotAt(segment, slot));
    if (value == 0) return NONE;
    if (<u32>(value >>> 32) == h) return slot & LAST_SLOT;
  }
  return NONE;
}

/** Entries of a table. */
export function entries(table: usize): u32 {
  return load<u32>(HEADER + table, ENTRIES);
}

/** Makes room for one more cell with this hash. False without memory. */
export function room(table: usize, h: u32): bool {
  let segment = segmentOf(table, h);
  while (load<u32>(segment, COUNT) >= FULL) {
    segment = divide(table, segment, h);
    if (!segment) return false;
  }
  return true;
}

/** Enters a cell for which there is room. */
export function enter(table: usize, h: u32, cell: u32): void {
  const segment = segmentOf(table, h);
  let slot = h;
  while (load<u64>(slotAt(segment, slot))) slot++;
  store<u64>(slotAt(segment, slot), (<u64>h << 32) | cell);
  store<u32>(segment, load<u32>(segment, COUNT) + 1, COUNT);
  store<u32>(HEADER + table, entries(table) + 1, ENTRIES);
}

/** Takes a cell out and closes the gap. */
export function erase(table: usize, h: u32, cell: u32): void {
  const segment = segmentOf(table, h);
  let gap = h;
  while (load<u32>(slotAt(segment, gap)) != cell) gap++;
  for (let slot = gap + 1; ; slot++) {
    const value = load<u64>(slotAt(segment, slot));
    if (value == 0) break;
    // An entry may move back as far as its home.
    if (((slot - <u32>(value >>> 32)) & LAST_SLOT) < ((slot - gap) & LAST_SLOT)) continue;
    store<u64>(slotAt(segment, gap), value);
    gap = slot;
  }
  store<u64>(slotAt(segment, gap), 0);
  store<u32>(segment, load<u32>(segment, COUNT) - 1, COUNT);
  store<u32>(HEADER + table, entries(table) - 1, ENTRIES);
}

function newSegment(depth: u32): usize {
  if (!get(SEGMENTS_LEFT)) {
    const area = takeArea(SEGMENTS);
    if (!area) return 0;
    set(SEGMENT_NEXT, <u32>area);
    set(SEGMENTS_LEFT, SEGMENTS_OF_AREA);
  }
  const segment: usize = get(SEGMENT_NEXT);
  set(SEGMENT_NEXT, <u32>segment + SEGMENT);
  set(SEGMENTS_LEFT, get(SEGMENTS_LEFT) - 1);
  store<u32>(segment, depth, DEPTH);
  return segment;
}

// Moves the entries of a full segment whose next hash bit is 1 to a new one. Returns the one that `h` belongs to now,
// 0 without memory.
function divide(table: usize, segment: usize, h: u32): usize {
  const depth = load<u32>(segment, DEPTH);
  if (depth == MAX_BITS) return 0;
  const ones = newSegment(depth + 1);
  if (!ones) return 0;
  if (depth == load<u32>(HEADER + table, BITS)) widen(table);
  const bit = 31 - depth;
  const count = load<u32>(segment, COUNT);
  // First the entries without the gaps between them, so that no branch of the loop that matters depends on chance.
  let end = MOVES;
  for (let at = segment; at < segment + COUNT; at += 8) {
    const value = load<u64>(at);
    store<u64>(end, value);
    end += <usize>(value != 0) << 3;
  }
  memory.fill(segment, 0, COUNT);
  let moved: u32 = 0;
  for (let move = MOVES; move < end; move += 8) {
    const value = load<u64>(move);
    let slot = <u32>(value >>> 32);
    const one = (slot >>> bit) & 1;
    const to = select<usize>(ones, segment, one);
    moved += one;
    while (load<u64>(slotAt(to, slot))) slot++;
    store<u64>(slotAt(to, slot), value);
  }
  store<u32>(ones, moved, COUNT);
  store<u32>(segment, count - moved, COUNT);
  store<u32>(segment, depth + 1, DEPTH);
  // The directory's entries whose first `depth` bits are those of `h`: the upper half ends in 1.
  const each: u32 = 1 << (load<u32>(HEADER + table, BITS) - depth - 1);
  let entry = <usize>load<u32>(HEADER + table) + ((((h >>> (32 - depth)) << 1) + 1) * each << 2);
  for (let k: u32 = 0; k < each; k++, entry += 4) store<u32>(entry, <u32>ones);
  return select<usize>(ones, segment, (h >>> bit) & 1);
}

/** Doubles the directory in its place, from behind. */
function widen(table: usize): void {
  const bits = load<u32>(HEADER + table, BITS);
  const directory: usize = load<u32>(HEADER + table);
  for (let k = <i32>(1 << bits) - 1; k >= 0; k--) {
    const segment = load<u32>(directory + (<usize>k << 2));
    store<u32>(directory + (<usize>k << 3), segment);
    store<u32>(directory + (<usize>k << 3), segment, 4);
  }
  store<u32>(HEADER + table, bits + 1, BITS);
}

/** A directory of two segments: no depth is 0, so no shift is by 32. */
export function initTable(table: usize): bool {
  const directory = takeDirectory();
  const zeros = directory ? newSegment(1) : 0;
  const ones = zeros ? newSegment(1) : 0;
  if (!ones) return false;
  store<u32>(directory, <u32>zeros);
  store<u32>(directory, <u32>ones, 4);
  store<u32>(HEADER + table, <u32>directory);
  store<u32>(HEADER + table, 1, BITS);
  return true;
}
