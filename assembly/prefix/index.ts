// The prefix index. A radix tree over chained block hashes: a node is a run of blocks that no other chain leaves, and
// one table finds any block by its key. docs/prefix-index.md has the drawing.
import { HEADER } from '../memory';
import { initBlocks } from './blocks';
import { get, initHeader, NODE_NEXT, ROWS, SCRATCH, SCRATCH_SIZE, set, take } from './header';
import { RESULT } from './match';
import { initNodes } from './nodes';
import { firstPlace, initPending } from './pending';
import { find, freeSegments, initTable } from './table';

export { check as prefixCheck } from './check';
export { insert as prefixInsert, touch as prefixTouch } from './insert';
export {
  advance as prefixAdvance,
  finish as prefixFinish,
  match as prefixMatch,
  start as prefixStart,
} from './match';
export { orderNext as prefixOrderNext, orderStart as prefixOrderStart } from './order';
export { clear as prefixClear, remove as prefixRemove } from './remove';
export {
  loaded as prefixLoaded,
  restore as prefixRestore,
  saveNext as prefixSaveNext,
  saveStart as prefixSaveStart,
} from './snapshot';

/** Makes an empty index of this memory, which may grow to `limit` bytes. False when that is too little. */
export function prefixInit(width: u32, multiplierLow: u32, multiplierHigh: u32, limit: u32): bool {
  initHeader(width, ((<u64>multiplierHigh) << 32) | multiplierLow, limit);
  return initBlocks() && initNodes() && initTable() && initPending();
}

/** Address of the header: its fields are read by the wrapper's statistics. */
export function prefixHeader(): usize {
  return HEADER;
}

/** A writer's buffer of at least `size` bytes; 0 without memory. Valid until a larger one is asked for. */
export function prefixScratch(size: u32): usize {
  const old: usize = get(SCRATCH);
  const oldSize = get(SCRATCH_SIZE);
  if (size <= oldSize) return old;
  const larger = size + (size >>> 2);
  const buffer = take(larger);
  if (!buffer) return 0;
  set(SCRATCH, <u32>buffer);
  set(SCRATCH_SIZE, larger);
  freeSegments(old, oldSize);
  return buffer;
}

/** A place for results and `size` bytes of hashes behind them, for one reader; 0 without memory. */
export function prefixSlot(size: u32): usize {
  return take(RESULT + size);
}

/** Sets how many rows a match clears: the highest instance id in use, plus 1. */
export function prefixRows(rows: u32): void {
  set(ROWS, rows);
}

export function prefixHas(key: usize): bool {
  return find(key) != 0 || firstPlace(key) != 0;
}

/** Node ids ever used, plus 1: what tables by node id must hold. */
export function prefixNodeIds(): u32 {
  return get(NODE_NEXT);
}

/** Turns wide hashes into 8-byte keys in place: the last 8 bytes of each, read big-endian. */
export function prefixNarrow(hashes: usize, width: u32, count: u32): void {
  for (let k: u32 = 0; k < count; k++) {
    store<u64>(hashes + (k << 3), bswap<u64>(load<u64>(hashes + k * width + width - 8)));
  }
}
