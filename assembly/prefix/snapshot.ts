// The body of a snapshot: nodes from the most recently used on, so that a parent stands before its children and the
// order is the recency. A record: parent (its place in this order from 1, 0 for the root) u32, blocks u16, holders u16,
// an entry of holders.ts u32 each, the keys. Read back, every record is checked before anything is built from it.

import { block, copyKey, KEY, newBlock, previous, reserveBlocks, writeBlock } from './blocks';
import { addHeld, BLOCKS, CURSOR, get, MALFORMED, NEWEST, NO_MEMORY, NODES, OLDEST, set, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, heldLength, holdersOf, initEntries } from './holders';
import {
  CHILDREN,
  FIRST,
  LAST,
  lengthOf,
  MAX_RUN,
  NEWER,
  newNode,
  node,
  OLDER,
  parentOf,
  reserveNodes,
  START,
  setDense,
  setLength,
} from './nodes';
import { enterRun, wait } from './pending';
import { linkBefore } from './recency';
import { findAfter } from './table';

const HEAD: u32 = 8;

/** Bytes of the body. Starts a snapshot. */
export function saveStart(): f64 {
  let size: u64 = 0;
  for (let id = get(NEWEST); id; id = load<u32>(node(id), OLDER)) size += recordSize(lengthOf(node(id)), holdersOf(node(id)));
  set(CURSOR, get(NEWEST));
  return <f64>size;
}

// @ts-ignore: decorator
@inline
function recordSize(length: u32, holders: u32): u32 {
  return HEAD + (holders << 2) + length * get(WIDTH);
}

/**
 * Writes the next whole records to `out`, at most `room` bytes; returns how many bytes, 0 at the end. `places` keeps
 * 4 bytes for each node id from call to call.
 */
export function saveNext(out: usize, room: u32, places: usize): u32 {
  const width = get(WIDTH);
  const start = out;
  let id = get(CURSOR);
  while (id) {
    const record = node(id);
    const length = lengthOf(record);
    const holders = holdersOf(record);
    const size = recordSize(length, holders);
    if (<u32>(out - start) + size > room) break;
    const newer = id == get(NEWEST) ? 0 : load<u32>(places);
    store<u32>(places, newer + 1);
    store<u32>(places + (id << 2), newer + 1);
    const above = parentOf(record);
    store<u32>(out, above ? load<u32>(places + (above << 2)) : 0);
    store<u16>(out, <u16>length, 4);
    store<u16>(out, <u16>holders, 6);
    memory.copy(out + HEAD, entriesOf(record, holders), holders << 2);
    out += size;
    let at = load<u32>(record, LAST);
    for (let k: u32 = 1; k <= length; k++) {
      copyKey(out - k * width, block(at) + KEY);
      at = previous(block(at));
    }
    id = load<u32>(record, OLDER);
  }
  set(CURSOR, id);
  return <u32>(out - start);
}

/**
 * Builds the nodes of the whole records in `size` bytes. Returns how many bytes they took, MALFORMED or NO_MEMORY, after
 * which the index is good for nothing. `live`: one byte for each of 1,024 instances, not 0 if it exists; behind it
 * 65,536 u32, zero at the start of a snapshot.
 */
export function restore(from: usize, size: u32, live: usize): i32 {
  const width = get(WIDTH);
  const marks = live + 1024;
  let at = from;
  while (size - <u32>(at - from) >= HEAD) {
    const left = size - <u32>(at - from);
    const length: u32 = load<u16>(at, 4);
    const holders: u32 = load<u16>(at, 6);
    const above = load<u32>(at);
    const place = get(NODES) + 1;
    if (length == 0 || length > MAX_RUN || above >= place) return MALFORMED;
    if (left < recordSize(length, holders)) break;
    for (let k: u32 = 0; k < holders; k++) {
      const entry = at + HEAD + (k << 2);
      const holder = entryHolder(entry);
      const mark = marks + (holder << 2);
      if (((holder >>> 10) & 3) == 3 || !load<u8>(live + (holder & 1023)) || load<u32>(mark) == place) return MALFORMED;
      if (entryLength(entry) == 0 || entryLength(entry) > length) return MALFORMED;
      store<u32>(mark, place);
      addHeld(entryLength(entry));
    }
    if (!reserveNodes(1) || !reserveBlocks(length)) return NO_MEMORY;
    const id = newNode();
    const record = node(id);
    if (!initEntries(record, holders)) return NO_MEMORY;
    memory.copy(entriesOf(record, holders), at + HEAD, holders << 2);
    at += HEAD + (holders << 2);
    let tail: u32 = 0;
    if (above) {
      const parent = node(above);
      tail = load<u32>(parent, LAST);
      store<u32>(record, load<u32>(parent, START) + lengthOf(parent), START);
      store<u32>(parent, load<u32>(parent, CHILDREN) + 1, CHILDREN);
    }
    if (findAfter(at, tail)) return MALFORMED;
    // In an index that nothing was ever freed from, ids follow each other.
    setLength(record, length);
    setDense(record, true);
    let first: u32 = 0;
    for (let k: u32 = 0; k < length; k++, at += width) {
      const fresh = newBlock();
      writeBlock(fresh, id, tail, at);
      if (k == 0) first = fresh;
      tail = fresh;
    }
    store<u32>(record, first, FIRST);
    store<u32>(record, tail, LAST);
    if (!(wait(first, length) ? enterRun(first, 1) : enterRun(tail, length))) return NO_MEMORY;
    linkBefore(id, get(OLDEST));
  }
  return <i32>(at - from);
}

/** Whether what was loaded has these totals and no leaf that nobody holds. */
export function loaded(nodes: u32, blocks: u32): bool {
  if (get(NODES) != nodes || get(BLOCKS) != blocks) return false;
  for (let id = get(OLDEST); id; ) {
    const record = node(id);
    if (!load<u32>(record, CHILDREN) && heldLength(record) != lengthOf(record)) return false;
    id = load<u32>(record, NEWER);
  }
  return true;
}
