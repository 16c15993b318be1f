// Nodes: runs of blocks that no other chain leaves. A record of 40 bytes, by id from 1:
//
//   first u32, last u32     its end blocks            older u32, newer u32   recency list, see recency.ts
//   start u32               depth of its first block  entries 3 x u32        holders, see holders.ts
//   length u16, holders u16, children u32
//
// The top bit of the length says that the run is dense: its blocks have consecutive ids, so that the one at an offset
// is found by counting, and only the first has to be in the table. Of any other run the table has every block.
import { block, nodeOf, previous } from './blocks';
import {
  add,
  addChunk,
  get,
  inside,
  NODE_CHUNKS,
  NODE_DIR,
  NODE_DIR_SIZE,
  NODE_FREE,
  NODE_NEXT,
  NODES,
  set,
  take,
} from './header';

const CHUNK_BITS: u32 = 10;
const CHUNK: u32 = 1 << CHUNK_BITS;
const DENSE: u32 = 1 << 15;
export const NODE: u32 = 40;
/** Longer runs continue in a child, so that a length fits 16 bits and a snapshot's record a small window. */
export const MAX_RUN: u32 = 16383;
/** Shorter runs are rather entered in the table whole than kept in nodes of their own. */
export const SHORT_RUN: u32 = 64;

export const FIRST: usize = 0;
export const LAST: usize = 4;
export const START: usize = 8;
export const LENGTH: usize = 12;
export const HOLDERS: usize = 14;
export const CHILDREN: usize = 16;
export const OLDER: usize = 20;
export const NEWER: usize = 24;
export const ENTRIES: usize = 28;

/** Address of a node record. */
// @ts-ignore: decorator
@inline
export function node(id: u32): usize {
  const entry = inside(get(NODE_DIR) + ((id >>> CHUNK_BITS) << 2), 4);
  return inside(load<u32>(entry) + (id & (CHUNK - 1)) * NODE, NODE);
}

// @ts-ignore: decorator
@inline
export function lengthOf(record: usize): u32 {
  return load<u16>(record, LENGTH) & ~DENSE;
}

// @ts-ignore: decorator
@inline
export function setLength(record: usize, length: u32): void {
  store<u16>(record, <u16>((load<u16>(record, LENGTH) & DENSE) | length), LENGTH);
}

// @ts-ignore: decorator
@inline
export function isDense(record: usize): bool {
  return (load<u16>(record, LENGTH) & DENSE) != 0;
}

// @ts-ignore: decorator
@inline
export function setDense(record: usize, dense: bool): void {
  store<u16>(record, <u16>(dense ? lengthOf(record) | DENSE : lengthOf(record)), LENGTH);
}

/** Makes `count` node ids available. False without memory. */
export function reserveNodes(count: u32): bool {
  const free = get(NODE_NEXT) - 1 - get(NODES);
  if (count <= free) return true;
  const end = get(NODE_NEXT) + (count - free);
  while (end > get(NODE_CHUNKS) << CHUNK_BITS) {
    const chunk = take(CHUNK * NODE);
    if (!chunk || !addChunk(NODE_DIR, NODE_DIR_SIZE, NODE_CHUNKS, chunk)) return false;
  }
  return true;
}

/** A reserved id, its record all zeros. */
export function newNode(): u32 {
  add(NODES, 1);
  let id = get(NODE_FREE);
  if (id) {
    const record = node(id);
    set(NODE_FREE, load<u32>(record));
    memory.fill(record, 0, NODE);
  } else {
    id = get(NODE_NEXT);
    set(NODE_NEXT, id + 1);
  }
  return id;
}

/** Frees an id whose holders and place in the recency list are gone. */
export function freeNode(id: u32): void {
  const record = node(id);
  memory.fill(record, 0, NODE);
  store<u32>(record, get(NODE_FREE));
  set(NODE_FREE, id);
  add(NODES, -1);
}

/** Node 0 stands for the root: its record exists and stays zero. */
export function initNodes(): bool {
  set(NODE_NEXT, 1);
  return reserveNodes(1);
}

/** Id of the node above, 0 at the root. */
// @ts-ignore: decorator
@inline
export function parentOf(record: usize): u32 {
  return nodeOf(block(previous(block(load<u32>(record, FIRST)))));
}

/** Offset of a block in its node: walks to both ends at once, so the nearer end decides what it costs. */
export function offsetOf(id: u32): u32 {
  const owner = nodeOf(block(id));
  const record = node(owner);
  const length = lengthOf(record);
  const first = load<u32>(record, FIRST);
  if (isDense(record)) return id - first;
  let up = id;
  let down = load<u32>(record, LAST);
  for (let steps: u32 = 0; steps < length; steps++) {
    if (up == first) return steps;
    if (down == id) return length - 1 - steps;
    up = previous(block(up));
    down = previous(block(down));
  }
  return 0;
}

/** Id of the block at an offset of a node. */
export function blockAt(record: usize, offset: u32): u32 {
  if (isDense(record)) return load<u32>(record, FIRST) + offset;
  let id = load<u32>(record, LAST);
  for (let k = lengthOf(record) - 1; k > offset; k--) id = previous(block(id));
  return id;
}

/** The block after `id`, which is not the last, in node `owner`. */
export function successor(owner: u32, id: u32): u32 {
  const record = node(owner);
  if (isDense(record)) return id + 1;
  let found = load<u32>(record, LAST);
  for (let above = previous(block(found)); above != id; above = previous(block(found))) found = above;
  return found;
}

/** Gives `count` blocks, from `id` upwards, to another node. */
export function relabel(id: u32, count: u32, owner: u32): void {
  for (; count > 0; count--) {
    const record = block(id);
    store<u32>(record, owner);
    id = previous(record);
  }
}
