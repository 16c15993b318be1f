// Block records, by id from 1: {node u32, previous u32, key}. `previous` is the parent block, also across nodes, so a
// run can be cut or joined by relabelling whichever part is smaller, and a node's parent is its first block's. Its top
// bit says whether the table has the block.
import {
  add,
  addChunk,
  BLOCK_CHUNKS,
  BLOCK_DIR,
  BLOCK_DIR_SIZE,
  BLOCK_FREE,
  BLOCK_NEXT,
  BLOCKS,
  get,
  inside,
  PENDING,
  RECORD,
  set,
  take,
  WIDTH,
} from './header';

const CHUNK_BITS: u32 = 12;
const CHUNK: u32 = 1 << CHUNK_BITS;
/** More than 4 GiB hold; as a result, an id is never negative. */
export const MAX_BLOCKS: u32 = (1 << 28) - 1;
export const KEY: usize = 8;
const ENTERED: u32 = 1 << 31;

/** Address of a block record. */
// @ts-ignore: decorator
@inline
export function block(id: u32): usize {
  const entry = inside(get(BLOCK_DIR) + ((id >>> CHUNK_BITS) << 2), 4);
  const record = get(RECORD);
  return inside(load<u32>(entry) + (id & (CHUNK - 1)) * record, record);
}

// @ts-ignore: decorator
@inline
export function nodeOf(record: usize): u32 {
  return load<u32>(record);
}

// @ts-ignore: decorator
@inline
export function previous(record: usize): u32 {
  return load<u32>(record, 4) & ~ENTERED;
}

// @ts-ignore: decorator
@inline
export function entered(record: usize): bool {
  return (load<u32>(record, 4) & ENTERED) != 0;
}

// @ts-ignore: decorator
@inline
export function setEntered(record: usize): void {
  store<u32>(record, load<u32>(record, 4) | ENTERED, 4);
}

/** Writes the record of a block that is not in the table. */
// @ts-ignore: decorator
@inline
export function writeBlock(id: u32, owner: u32, above: u32, key: usize): void {
  const record = block(id);
  store<u32>(record, owner);
  store<u32>(record, above, 4);
  copyKey(record + KEY, key);
}

// @ts-ignore: decorator
@inline
export function sameKey(a: usize, b: usize): bool {
  const width = get(WIDTH);
  if (width == 8) return load<u64>(a) == load<u64>(b);
  if (load<u64>(a) != load<u64>(b) || load<u64>(a, 8) != load<u64>(b, 8)) return false;
  return width == 16 || (load<u64>(a, 16) == load<u64>(b, 16) && load<u64>(a, 24) == load<u64>(b, 24));
}

// @ts-ignore: decorator
@inline
export function copyKey(to: usize, from: usize): void {
  const width = get(WIDTH);
  store<u64>(to, load<u64>(from));
  if (width == 8) return;
  store<u64>(to, load<u64>(from, 8), 8);
  if (width == 16) return;
  v128.store(to, v128.load(from, 16), 16);
}

/** Makes `count` ids available. False without memory. */
export function reserveBlocks(count: u32): bool {
  const free = get(BLOCK_NEXT) - 1 - get(BLOCKS);
  if (count <= free) return true;
  const end = <u64>get(BLOCK_NEXT) + (count - free);
  if (end > MAX_BLOCKS) return false;
  while (end > <u64>get(BLOCK_CHUNKS) << CHUNK_BITS) {
    const chunk = take(CHUNK * get(RECORD));
    if (!chunk || !addChunk(BLOCK_DIR, BLOCK_DIR_SIZE, BLOCK_CHUNKS, chunk)) return false;
  }
  return true;
}

/** A reserved id, for a block that is not in the table. */
// @ts-ignore: decorator
@inline
export function newBlock(): u32 {
  add(BLOCKS, 1);
  add(PENDING, 1);
  let id = get(BLOCK_FREE);
  if (id) {
    set(BLOCK_FREE, previous(block(id)));
  } else {
    id = get(BLOCK_NEXT);
    set(BLOCK_NEXT, id + 1);
  }
  return id;
}

export function freeBlock(id: u32): void {
  const record = block(id);
  if (!entered(record)) add(PENDING, -1);
  store<u32>(record, 0);
  store<u32>(record, get(BLOCK_FREE), 4);
  set(BLOCK_FREE, id);
  add(BLOCKS, -1);
}

/** Block 0 stands for "none": its record exists and stays zero. */
export function initBlocks(): bool {
  set(BLOCK_NEXT, 1);
  return reserveBlocks(1);
}
