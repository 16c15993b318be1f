// The longest prefix, per instance and tier. One table look-up and a few comparisons per node of the path. A holder's
// length grows by what it holds of a node only if it already reaches the node's start: prefixes are checked to be
// closed, never assumed, and a block evicted in the middle ends the answer there.
//
// A match takes one hash at a time and then knows which position it wants next. So a caller whose hashes lie in
// JavaScript brings over the dozen that decide, not the thousand of the prompt.
//
// A result is 1,024 rows of 16 bytes, by instance: blocks on gpu, cpu, disk, and on any mixture of them; then the state
// of the match.
import { HEADER } from '../memory';
import { block, KEY, nodeOf, sameKey } from './blocks';
import { barrier, BUSY, get, ROWS, SHARED, VERSION, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, holdersOf } from './holders';
import { FIRST, isDense, LAST, lengthOf, node } from './nodes';
import { findAfter, findIn } from './table';

const ROW: u32 = 16;
const ANY: usize = 12;
// The state behind the rows.
const STATE: u32 = 1024 * ROW;
const COUNT: usize = STATE; // hashes of the query
const GROUP: usize = STATE + 4;
const REACH: usize = STATE + 8; // leading blocks held by anyone
const DEPTH: usize = STATE + 12; // where the current node starts
const TAIL: usize = STATE + 16; // the last block before it
const CURRENT: usize = STATE + 20; // the node, 0 while its first block is asked for
const WANTED: usize = STATE + 24; // how many of its blocks the query could have
const LOW: usize = STATE + 28; // so many agree; the one at HIGH does not
const HIGH: usize = STATE + 32; // 0 until the last one wanted was compared
const SEEN: usize = STATE + 36; // the writer's version at the start
const CELL: usize = STATE + 40; // a barrier cell that no other reader touches
/** Bytes of a result. */
export const RESULT: u32 = STATE + 48;

const DONE: i32 = -1;
// Attempts before a reader is told that the writer is busy; one takes a microsecond or two.
const ATTEMPTS: u32 = 256;

/**
 * Writes the rows of `count` hashes for one group to `result` and returns how many leading blocks are held by anyone;
 * BUSY when a writer changed the index during every attempt (the shared build).
 */
export function match(result: usize, hashes: usize, count: u32, group: u32): i32 {
  for (let attempt: u32 = 0; attempt < ATTEMPTS; attempt++) {
    if (start(result, count, group) >= 0) advance(result, hashes, 0, count);
    const reach = finish(result);
    if (reach >= 0) return reach;
  }
  return BUSY;
}

/** Starts a match and returns the first position it wants, or -1. */
export function start(result: usize, count: u32, group: u32): i32 {
  if (SHARED) store<u32>(result, atomic.load<u32>(HEADER + VERSION), SEEN);
  const end = result + min(get(ROWS) * ROW, STATE);
  for (let row = result; row < end; row += ROW) v128.store(row, i64x2.splat(0));
  store<u32>(result, count, COUNT);
  store<u32>(result, group, GROUP);
  store<u32>(result, 0, REACH);
  store<u32>(result, 0, DEPTH);
  store<u32>(result, 0, TAIL);
  store<u32>(result, 0, CURRENT);
  return count ? 0 : DONE;
}

/**
 * Goes on with `count` hashes, the first of which is at the position wanted, as far as they serve. Returns the position
 * wanted next, or -1 at the end.
 */
export function advance(result: usize, hashes: usize, position: u32, count: u32): i32 {
  const width = get(WIDTH);
  let at: i32 = position;
  do {
    at = step(result, hashes + (at - position) * width);
  } while (at >= 0 && <u32>at - position < count);
  return at;
}

// Takes the hash at the position wanted.
function step(result: usize, key: usize): i32 {
  const depth = load<u32>(result, DEPTH);
  const id = load<u32>(result, CURRENT);
  if (id == 0) return enter(result, key, depth);
  const record = node(id);
  const wanted = load<u32>(result, WANTED);
  let low: u32 = 1;
  let high = load<u32>(result, HIGH);
  if (high == 0) {
    const whole = wanted == lengthOf(record);
    if (whole ? sameKey(block(load<u32>(record, LAST)) + KEY, key) : agrees(id, record, wanted - 1, key)) {
      return settle(result, record, depth, wanted);
    }
    high = wanted - 1;
  } else {
    low = load<u32>(result, LOW);
    const probe = (low + high) >>> 1;
    if (agrees(id, record, probe, key)) low = probe + 1;
    else high = probe;
  }
  if (low >= high) return settle(result, record, depth, low);
  store<u32>(result, low, LOW);
  store<u32>(result, high, HIGH);
  return depth + ((low + high) >>> 1);
}

// Whether a node's block at an offset has this key. Where ids do not count the offset, the table says that the node has
// it somewhere: hashes of one chain cannot have it elsewhere.
// @ts-ignore: decorator
@inline
function agrees(id: u32, record: usize, offset: u32, key: usize): bool {
  if (isDense(record)) return sameKey(block(load<u32>(record, FIRST) + offset) + KEY, key);
  return findIn(key, id) != 0;
}

/** Leading blocks held by anyone, or BUSY when the writer changed something since the start: then it counts for nothing. */
export function finish(result: usize): i32 {
  if (SHARED) {
    const seen = load<u32>(result, SEEN);
    barrier(result + CELL);
    if (seen & 1 || atomic.load<u32>(HEADER + VERSION) != seen) return BUSY;
  }
  return load<u32>(result, REACH);
}

// The node whose first block this is, if it follows the path so far.
function enter(result: usize, key: usize, depth: u32): i32 {
  const first = findAfter(key, load<u32>(result, TAIL));
  const id = nodeOf(block(first));
  const record = node(id);
  const length = lengthOf(record);
  if (!length || load<u32>(record, FIRST) != first) return DONE;
  const wanted = min(length, load<u32>(result, COUNT) - depth);
  if (wanted == 1) return settle(result, record, depth, 1);
  store<u32>(result, id, CURRENT);
  store<u32>(result, wanted, WANTED);
  store<u32>(result, 0, HIGH);
  return depth + wanted - 1;
}

// Counts the blocks of a node that agree, and goes on behind it if they are all and someone has them.
function settle(result: usize, record: usize, depth: u32, agreed: u32): i32 {
  const reach = score(record, result, depth, agreed);
  store<u32>(result, reach, REACH);
  depth += agreed;
  if (agreed < lengthOf(record) || reach < depth || depth >= load<u32>(result, COUNT)) return DONE;
  store<u32>(result, depth, DEPTH);
  store<u32>(result, load<u32>(record, LAST), TAIL);
  store<u32>(result, 0, CURRENT);
  return depth;
}

// Extends the rows of a node's holders; returns the longest reach of them all, which before was `depth`.
function score(record: usize, result: usize, depth: u32, agreed: u32): u32 {
  const group = load<u32>(result, GROUP);
  const count = holdersOf(record);
  let reach = depth;
  let entry = entriesOf(record, count);
  for (const end = entry + (count << 2); entry < end; entry += 4) {
    const holder = entryHolder(entry);
    if (holder >>> 12 != group) continue;
    const until = depth + min(entryLength(entry), agreed);
    const row = result + (<usize>(holder & 1023) << 4);
    const tier = row + (((holder >>> 10) & 3) << 2);
    if (load<u32>(tier) == depth) store<u32>(tier, until);
    // The mixture may already have grown in this node, by another tier of the same instance.
    const any = load<u32>(row, ANY);
    if (any >= depth) store<u32>(row, max(any, until), ANY);
    reach = max(reach, until);
  }
  return reach;
}
