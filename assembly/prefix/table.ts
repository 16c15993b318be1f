// The table that finds a block by its key, at least the first of each run (pending.ts): extendible hashing. The top bits
// of a key's hash choose, through a directory, a segment of 4,096 slots; within it, linear probing from the place that
// the low bits say. A segment that fills up is replaced by two, so the table grows without ever stalling for a rehash of
// everything, and removal shifts back, so there are no tombstones. A key has a slot for each place where it stands.
//
// A slot is a block id and 32 bits of its key's hash, all that dividing and shifting back need: only a search looks at
// the keys, which are scattered, and then hardly ever at a wrong one. Keys are hashes already; the multiplication by a
// random odd number keeps chosen keys from crowding one segment, unless all end in the same 64 bits.
import { HEADER } from '../memory';
import { block, entered, KEY, nodeOf, previous, sameKey, setEntered } from './blocks';
import {
  change,
  changing,
  get,
  inside,
  MULTIPLIER,
  publish,
  SEGMENT_FREE,
  SHARED,
  set,
  TABLE_BITS,
  TABLE_DIR,
  TABLE_MOVES,
  TWINS,
  takeForTable,
  WIDTH,
} from './header';

const SLOTS: u32 = 4096;
const LAST_SLOT: u32 = SLOTS - 1;
const FULL: u32 = 3584;
const MAX_BITS: u32 = 20;
// Behind its slots a segment has its count and its depth, the hash bits that its keys share.
const COUNT: usize = <usize>SLOTS << 3;
const DEPTH: usize = COUNT + 4;
const SEGMENT: u32 = <u32>COUNT + 16;
// A slot: the block's id in its low half, 0 when it is empty, and the hash in the other. It is read and written whole.

/** The hash of a key that `put` and `warm` want. */
// @ts-ignore: decorator
@inline
export function hash(key: usize): u32 {
  const low = load<u64>(key + get(WIDTH) - 8);
  return <u32>(((low ^ (low >>> 32)) * load<u64>(HEADER + MULTIPLIER)) >>> 32);
}

// @ts-ignore: decorator
@inline
function segmentOf(hash: u32): usize {
  const entry = inside(get(TABLE_DIR) + ((hash >>> (32 - get(TABLE_BITS))) << 2), 4);
  return inside(load<u32>(entry), SEGMENT);
}

// @ts-ignore: decorator
@inline
function slotAt(segment: usize, slot: u32): usize {
  return segment + ((slot & LAST_SLOT) << 3);
}

// What a search asks of a block beside its key.
const NOTHING: u32 = 0;
const PARENT: u32 = 1; // the block before it
const OWNER: u32 = 2; // its node
const AFTER: u32 = 3; // to come after another block in the order of the slots

// @ts-ignore: decorator
@inline
function search(key: usize, asked: u32, value: u32): u32 {
  const h = hash(key);
  const segment = segmentOf(h);
  let passed = asked != AFTER;
  for (let slot = h, end = h + SLOTS; slot != end; slot++) {
    const entry = load<u64>(slotAt(segment, slot));
    if (entry == 0) return 0;
    if (<u32>(entry >>> 32) != h) continue;
    const record = block(<u32>entry);
    if (!sameKey(record + KEY, key)) continue;
    if (asked == PARENT && previous(record) != value) continue;
    if (asked == OWNER && nodeOf(record) != value) continue;
    if (passed) return <u32>entry;
    passed = <u32>entry == value;
  }
  return 0;
}

/** Id of a block with this key, 0 when the table has none. */
export function find(key: usize): u32 {
  return search(key, NOTHING, 0);
}

/** Id of the block with this key that follows block `parent` (0: starts a prompt) as the first of a run, or 0. */
export function findAfter(key: usize, parent: u32): u32 {
  return search(key, PARENT, parent);
}

/** Id of a block with this key in a node, or 0. */
export function findIn(key: usize, owner: u32): u32 {
  return search(key, OWNER, owner);
}

/** Id of the next block with this key after `id`, or 0. */
export function findNext(key: usize, id: u32): u32 {
  return search(key, AFTER, id);
}

/** Whether the table has this very block: its record should know. */
export function hasBlock(id: u32): bool {
  const h = hash(block(id) + KEY);
  const segment = segmentOf(h);
  let slot = h;
  while (load<u32>(slotAt(segment, slot)) != id && load<u32>(slotAt(segment, slot))) slot++;
  return load<u32>(slotAt(segment, slot)) == id;
}

/** Enters a block whose key has the hash `h`. False without memory. */
export function put(id: u32, record: usize, h: u32): bool {
  let segment = segmentOf(h);
  while (load<u32>(segment, COUNT) >= FULL) {
    const divided = divide(segment, h);
    if (divided == segment) break;
    if (!divided) return false;
    segment = divided;
  }
  const count = load<u32>(segment, COUNT);
  if (count == LAST_SLOT) return false;
  for (let slot = h; ; slot++) {
    const at = slotAt(segment, slot);
    const entry = load<u64>(at);
    if (entry == 0) {
      store<u64>(at, ((<u64>h) << 32) | id);
      break;
    }
    if (<u32>(entry >>> 32) == h && sameKey(block(<u32>entry) + KEY, record + KEY)) set(TWINS, 1);
  }
  store<u32>(segment, count + 1, COUNT);
  setEntered(record);
  return true;
}

/**
 * Brings the slot for a hash into the cache, and the line behind, which most searches of a full segment reach: looks
 * that overlap, where `put` would wait for each.
 */
// @ts-ignore: decorator
@inline
export function warm(h: u32): u32 {
  const segment = segmentOf(h);
  return load<u32>(slotAt(segment, h)) | load<u32>(slotAt(segment, h + 8));
}

/** Takes a block out of the table, if it is there, and closes the gap. */
export function erase(id: u32): void {
  if (!entered(block(id))) return;
  const h = hash(block(id) + KEY);
  const segment = segmentOf(h);
  let gap = h;
  while (load<u32>(slotAt(segment, gap)) != id) gap++;
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
}

function newSegment(depth: u32): usize {
  let segment: usize = get(SEGMENT_FREE);
  if (segment) {
    set(SEGMENT_FREE, load<u32>(segment));
    memory.fill(segment, 0, SEGMENT);
  } else {
    segment = takeForTable(SEGMENT);
    if (!segment) return 0;
  }
  store<u32>(segment, depth, DEPTH);
  return segment;
}

function freeSegment(segment: usize): void {
  store<u32>(segment, get(SEGMENT_FREE));
  set(SEGMENT_FREE, <u32>segment);
}

/** Makes segments of memory that served another purpose. */
export function freeSegments(from: usize, size: u32): void {
  for (; size >= SEGMENT; size -= SEGMENT, from += SEGMENT) freeSegment(from);
}

// Replaces a full segment by two. With readers about, both are new and complete before the directory names them: a
// reader still in the old one reads good data until it is used again, which is after the version has changed. Without
// readers the old one, which is in the cache, is one of the two.
// Returns the one that `h` belongs to now, the same segment when the directory is at its limit, 0 without memory.
function divide(segment: usize, h: u32): usize {
  const depth = load<u32>(segment, DEPTH);
  if (depth == MAX_BITS) return segment;
  if (depth == get(TABLE_BITS) && !widen()) return 0;
  const ones = newSegment(depth + 1);
  if (!ones) return 0;
  const zeros = SHARED ? newSegment(depth + 1) : segment;
  if (!zeros) {
    freeSegment(ones);
    return 0;
  }
  const count = load<u32>(segment, COUNT);
  const bit = 31 - depth;
  // First the entries without the gaps between them, so that no branch of the loop that matters depends on chance.
  const moves: usize = get(TABLE_MOVES);
  let end = moves;
  for (let at = segment; at < segment + COUNT; at += 8) {
    const value = load<u64>(at);
    store<u64>(end, value);
    end += <usize>(value != 0) << 3;
  }
  if (!SHARED) memory.fill(segment, 0, COUNT);
  let ended: u32 = 0;
  for (let move = moves; move < end; move += 8) {
    const value = load<u64>(move);
    let slot = <u32>(value >>> 32);
    const one = (slot >>> bit) & 1;
    const to = select<usize>(ones, zeros, one);
    ended += one;
    while (load<u32>(slotAt(to, slot))) slot++;
    store<u64>(slotAt(to, slot), value);
  }
  store<u32>(ones, ended, COUNT);
  store<u32>(zeros, count - ended, COUNT);
  store<u32>(zeros, depth + 1, DEPTH);
  // The directory's entries whose first `depth` bits are those of `h`: the lower half ends in 0, the upper in 1.
  const each: u32 = 1 << (get(TABLE_BITS) - depth - 1);
  let entry = get(TABLE_DIR) + (((h >>> (32 - depth)) * each) << 3);
  // A cut enters a block in the middle of a change.
  const own = !changing();
  if (own) change();
  for (let k: u32 = 0; k < each << 1; k++, entry += 4) store<u32>(entry, <u32>(k < each ? zeros : ones));
  if (own) publish();
  if (SHARED) freeSegment(segment);
  return select<usize>(ones, zeros, (h >>> bit) & 1);
}

/** Doubles the directory. */
function widen(): bool {
  const bits = get(TABLE_BITS);
  const from: usize = get(TABLE_DIR);
  const to = takeForTable(4 << (bits + 1));
  if (!to) return false;
  for (let k: u32 = 0; k < <u32>1 << bits; k++) {
    const segment = load<u32>(from + (k << 2));
    store<u32>(to + (k << 3), segment);
    store<u32>(to + (k << 3), segment, 4);
  }
  const own = !changing();
  if (own) change();
  set(TABLE_DIR, <u32>to);
  set(TABLE_BITS, bits + 1);
  if (own) publish();
  return true;
}

/** A directory of two segments: no depth is 0, so no shift is by 64. */
export function initTable(): bool {
  const dir = takeForTable(8);
  const moves = takeForTable((SLOTS + 1) << 3);
  const zeros = newSegment(1);
  const ones = newSegment(1);
  if (!dir || !moves || !ones) return false;
  store<u32>(dir, zeros);
  store<u32>(dir, ones, 4);
  set(TABLE_DIR, <u32>dir);
  set(TABLE_BITS, 1);
  set(TABLE_MOVES, <u32>moves);
  return true;
}
