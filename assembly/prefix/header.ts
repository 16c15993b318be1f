// The header of a prefix index, its memory and its seqlock. Everything an index knows hangs off HEADER, so that any
// number of instances of the shared build can work on one memory. Memory is only ever taken from the top; what is
// freed goes to free lists of its own kind (blocks, nodes, table segments, spilled holder lists), so addresses stay
// valid for ever and a reader that follows a stale one reads stale data, never outside the memory.
import { ensure, HEADER, HEAP, get, set } from '../memory';

export { add, get, set } from '../memory';

/** True in the shared build: one writer, many readers. */
export const SHARED: bool = ASC_FEATURE_THREADS;

// Fields, as byte offsets from HEADER.
export const VERSION: usize = 0; // odd while the writer changes what readers follow
export const WIDTH: usize = 4; // bytes of a key: 8, 16 or 32
export const RECORD: usize = 8; // bytes of a block record
export const TOP: usize = 12; // first address never handed out
export const MULTIPLIER: usize = 16; // u64, odd and random: the table's hash function
export const BLOCK_DIR: usize = 24;
export const BLOCK_DIR_SIZE: usize = 28;
export const BLOCK_CHUNKS: usize = 32;
export const BLOCK_FREE: usize = 36;
export const BLOCK_NEXT: usize = 40;
export const BLOCKS: usize = 44;
export const NODE_DIR: usize = 48;
export const NODE_DIR_SIZE: usize = 52;
export const NODE_CHUNKS: usize = 56;
export const NODE_FREE: usize = 60;
export const NODE_NEXT: usize = 64;
export const NODES: usize = 68;
export const TABLE_DIR: usize = 72;
export const TABLE_BITS: usize = 76;
export const SEGMENT_FREE: usize = 80;
export const OLDEST: usize = 84; // ends of the recency list of nodes
export const NEWEST: usize = 88;
export const HELD: usize = 96; // u64: pairs of a block and a holder
export const ROWS: usize = 104; // instances whose result rows a match clears
export const SCRATCH: usize = 108;
export const SCRATCH_SIZE: usize = 112;
export const WALK_NODE: usize = 116; // where the writer's last walk ended
export const WALK_OFFSET: usize = 120;
export const WALK_TAIL: usize = 124;
export const GROWN_BY: usize = 128; // what an append put into the node in which the walk ended: how many blocks,
export const GROWN_TO: usize = 132; // the last one's id
export const SPILL_FREE: usize = 136; // free lists of spilled holder lists by size class, up to 192
export const PENDING: usize = 200; // blocks that are not in the table yet, see pending.ts
export const RANGES: usize = 204; // where their ids are noted: a ring of ranges,
export const RANGE_COUNT: usize = 208; // how many of them,
export const RANGE_HEAD: usize = 212; // the oldest one,
export const NOTED: usize = 216; // and how many ids they have
export const ASKED: usize = 220; // not 0 once a block was asked for by its key alone
export const TWINS: usize = 224; // not 0 once a key was entered that was there already
export const LIMIT: usize = 228; // where the memory must end
export const CURSOR_BLOCK: usize = 232; // in a node's middle, or 0
export const FENCE: usize = 240; // the writer's barrier cell
export const TABLE_MOVES: usize = 244; // where a segment's entries wait while it is divided
export const WARMED: usize = 248; // takes what `warm` returns, so that it is not optimized away
export const CURSOR: usize = 252; // where a listing or a snapshot goes on
export const QUEUE: usize = 256; // 32 x 12 bytes: blocks about to be entered in the table

// Status codes of the writer's functions.
export const NO_MEMORY: i32 = -1;
export const ORPHAN: i32 = -3; // the parent is not in the index, or which one is meant is in doubt
export const BUSY: i32 = -4; // the writer kept writing
export const MALFORMED: i32 = -5; // a snapshot that contradicts itself

// The last addresses stay unused so that no end of a structure overflows 32 bits.
const LAST_ADDRESS: u64 = 0xffff_0000;
// What the table takes for a block at most, just after all its segments have divided.
const TABLE_SHARE: u64 = 20;

// @ts-ignore: decorator
@inline
export function addHeld(delta: i64): void {
  store<i64>(HEADER + HELD, load<i64>(HEADER + HELD) + delta);
}

/**
 * `size` fresh zero bytes, 16-aligned; 0 when the memory cannot grow. What the blocks that wait will take of the table
 * stays free: that they can be removed must not depend on memory that is gone.
 */
export function take(size: u32): usize {
  return allot(size, get(PENDING) * TABLE_SHARE);
}

/** The same for the table. */
export function takeForTable(size: u32): usize {
  return allot(size, 0);
}

function allot(size: u32, spare: u64): usize {
  const from = (get(TOP) + 15) & ~15;
  const end = <u64>from + size;
  const limit: u64 = get(LIMIT);
  if (end + spare > limit) return 0;
  // Growing costs tens of microseconds: up to a sixteenth more at a time, or 8 MiB.
  if (end > (<u64>(<u32>memory.size())) << 16 && !ensure(min(end + min(end >>> 4, <u64>0x80_0000), limit)) && !ensure(end)) return 0;
  set(TOP, <u32>end);
  return from;
}

/**
 * The pointer itself, or 0 (an area that is all zeros) where `size` bytes from it would leave the memory in use:
 * readers of the shared build may see half of a change and find that out only afterwards.
 */
// @ts-ignore: decorator
@inline
export function inside(pointer: usize, size: u32): usize {
  if (!SHARED) return pointer;
  return pointer <= get(TOP) - size ? pointer : 0;
}

/** Adds a chunk's address to a directory, which doubles when it is full. */
export function addChunk(dir: usize, size: usize, count: usize, chunk: usize): bool {
  const n = get(count);
  if (n == get(size)) {
    const larger = max<u32>(n << 1, 64);
    const copy = take(larger << 2);
    if (!copy) return false;
    memory.copy(copy, get(dir), n << 2);
    set(dir, <u32>copy);
    set(size, larger);
  }
  store<u32>(get(dir) + (n << 2), <u32>chunk);
  set(count, n + 1);
  return true;
}

/**
 * Orders memory accesses before it against those after it, by two read-modify-writes of a cell that nobody reads: one
 * lets a later access overtake its own store, a second one does not. (The compiler cannot emit atomic.fence yet.)
 */
// @ts-ignore: decorator
@inline
export function barrier(cell: usize): void {
  if (!SHARED) return;
  atomic.add<u32>(cell, 0);
  atomic.add<u32>(cell, 0);
}

/** Whether a change is under way. */
// @ts-ignore: decorator
@inline
export function changing(): bool {
  return (get(VERSION) & 1) == 1;
}

/** Readers that overlap what follows, up to `publish`, will try again. */
// @ts-ignore: decorator
@inline
export function change(): void {
  if (!SHARED) return;
  atomic.add<u32>(HEADER + VERSION, 1);
  barrier(HEADER + FENCE);
}

// @ts-ignore: decorator
@inline
export function publish(): void {
  if (!SHARED) return;
  atomic.add<u32>(HEADER + VERSION, 1);
}

/** Lays out an empty header for keys of `width` bytes in a memory of at most `limit` bytes. */
export function initHeader(width: u32, multiplier: u64, limit: u32): void {
  memory.fill(HEADER, 0, HEAP - HEADER);
  set(WIDTH, width);
  set(RECORD, width + 8);
  set(TOP, <u32>HEAP);
  set(LIMIT, <u32>min(<u64>limit, LAST_ADDRESS));
  store<u64>(HEADER + MULTIPLIER, multiplier | 1);
}
