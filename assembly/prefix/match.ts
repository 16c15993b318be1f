// The longest prefix, per instance and tier. One table look-up and one comparison per node of the path. A holder's
// length grows by what it holds of a node only if it already reaches the node's start: prefixes are checked to be
// closed, never assumed, and a block evicted in the middle ends the answer there.
//
// A result is 1,024 rows of 16 bytes, by instance: blocks on gpu, cpu, disk, and on any mixture of them.
import { HEADER } from '../memory';
import { block, KEY, nodeOf, previous, sameKey } from './blocks';
import { BUSY, barrier, get, ROWS, SHARED, VERSION, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, holdersOf } from './holders';
import { FIRST, LAST, lengthOf, node, START } from './nodes';
import { find } from './table';

export const ROW: u32 = 16;
// Behind the rows, a barrier cell that no other reader touches.
const FENCE: u32 = 1024 * ROW;
/** Bytes of a result. */
export const RESULT: u32 = FENCE + 16;
const ANY: usize = 12;
// Attempts before a reader is told that the writer is busy; one takes a microsecond or two.
const ATTEMPTS: u32 = 200;

/**
 * Writes the rows of `count` hashes for one group to `result` and returns how many leading blocks are held by anyone;
 * BUSY when a writer changed the index during every attempt (the shared build).
 */
export function match(result: usize, hashes: usize, count: u32, group: u32): i32 {
  if (!SHARED) return follow(result, hashes, count, group);
  for (let attempt: u32 = 0; attempt < ATTEMPTS; attempt++) {
    const version = atomic.load<u32>(HEADER + VERSION);
    if (version & 1) continue;
    const matched = follow(result, hashes, count, group);
    barrier(result + FENCE);
    if (atomic.load<u32>(HEADER + VERSION) == version) return matched;
  }
  return BUSY;
}

function follow(result: usize, hashes: usize, count: u32, group: u32): i32 {
  const width = get(WIDTH);
  const end = result + min(get(ROWS) * ROW, FENCE);
  for (let row = result; row < end; row += ROW) v128.store(row, i64x2.splat(0));
  let depth: u32 = 0;
  let tail: u32 = 0;
  let reach: u32 = 0;
  while (depth < count) {
    const first = find(hashes + depth * width);
    if (!first || previous(block(first)) != tail) break;
    const id = nodeOf(block(first));
    const record = node(id);
    const length = lengthOf(record);
    if (load<u32>(record, FIRST) != first || load<u32>(record, START) != depth || !length) break;
    const wanted = min(length, count - depth);
    tail = load<u32>(record, LAST);
    const agreed = agreement(id, tail, length, hashes + depth * width, wanted);
    reach = max(reach, score(record, result, depth, agreed, group, reach));
    depth += agreed;
    if (agreed < length || reach < depth) break;
  }
  return reach;
}

// How many of the `wanted` hashes are the first blocks of a node whose first block they start with.
function agreement(id: u32, last: u32, length: u32, hashes: usize, wanted: u32): u32 {
  const width = get(WIDTH);
  const final = hashes + (wanted - 1) * width;
  if (wanted == length) {
    if (sameKey(block(last) + KEY, final)) return wanted;
  } else if (nodeOf(block(find(final))) == id) {
    return wanted;
  }
  let low: u32 = 1;
  let high = wanted - 1;
  while (low < high) {
    const probe = (low + high) >>> 1;
    if (nodeOf(block(find(hashes + probe * width))) == id) low = probe + 1;
    else high = probe;
  }
  return low;
}

// Extends the rows of a node's holders; returns the longest reach among them all, `reach` being that before.
function score(record: usize, result: usize, depth: u32, agreed: u32, group: u32, reach: u32): u32 {
  const count = holdersOf(record);
  let entry = entriesOf(record, count);
  for (const end = entry + (count << 2); entry < end; entry += 4) {
    const holder = entryHolder(entry);
    if (holder >>> 12 != group) continue;
    const until = depth + min(entryLength(entry), agreed);
    const row = result + ((<usize>(holder & 1023)) << 4);
    const tier = row + (((holder >>> 10) & 3) << 2);
    if (load<u32>(tier) == depth) store<u32>(tier, until);
    // The mixture may already have grown in this node, by another tier of the same instance.
    const any = load<u32>(row, ANY);
    if (any >= depth) store<u32>(row, max(any, until), ANY);
    reach = max(reach, until);
  }
  return reach;
}
