// Offset allocator: hands out ranges of segments it never touches, so a segment may be any memory anywhere. One
// instance holds many segments. Sizes are exact to the alignment; allocate and free take constant time, and a freed
// region joins its free neighbours at once, so two free regions never touch. State: header and nodes (nodes.ts), one
// table a segment (classes.ts) and the batch window in front of the tables:
//
//   u32 x BATCH  segments
//   f64 x BATCH  sizes, or handles to free
//   f64 x BATCH  offsets
//   f64 x BATCH  handles
//
// Sizes, offsets and handles are integers below 2^53 and pass as f64, which JavaScript reads without a BigInt. The
// caller checks the arguments. A list in shared memory may change behind that check, so `allocate` takes any number for
// its segment and size, and answers that nothing fits.
import { ensure } from '../memory';
import { BATCH, findFree, insertFree, largestFree, removeFree, SEGMENT, table, WINDOW, WINDOW_BYTES } from './classes';
import {
  dropNode,
  find,
  inUse,
  nodeAt,
  offsetOf,
  RESULT,
  segments,
  segmentOf,
  setFree,
  setInUse,
  sizeOf,
  startNodes,
  takeNode,
} from './nodes';

/** In a segment's table: the region where the last allocateAt ended. */
const LAST_AT: usize = 36;
const SIZES: usize = WINDOW + BATCH * 4;
const OFFSETS: usize = SIZES + BATCH * 8;
const HANDLES: usize = OFFSETS + BATCH * 8;

/** Prepares an empty memory for `segments` tables. False when it cannot grow to hold them. */
export function allocStart(segments: u32, seed: u32): bool {
  const end = table(segments);
  if (!ensure(<u64>end)) return false;
  startNodes(end, segments, seed);
  return true;
}

/** Address of the batch window. */
export function allocWindow(): usize {
  return WINDOW;
}

/** Address of the handle of the last allocation. */
export function allocResult(): usize {
  return RESULT;
}

/** Opens a segment of offsets `base` to `base + capacity`, multiples of `alignment`. False: no memory for a node. */
export function allocAddSegment(segment: u32, base: f64, capacity: f64, alignment: f64): bool {
  const first = takeNode();
  if (first == 0) return false;
  const at = table(segment);
  memory.fill(at, 0, SEGMENT);
  store<u64>(at, <u64>capacity);
  store<u64>(at, <u64>alignment - 1, 16);
  store<u32>(at, first, 32);
  const node = nodeAt(first);
  store<u64>(node, <u64>base);
  store<u64>(node, 0, 16);
  insertFree(segment, first, <u64>capacity);
  return true;
}

/** Drops every region of a segment: its handles are stale from then on. */
export function allocRemoveSegment(segment: u32): void {
  for (let index = load<u32>(table(segment), 32); index != 0; ) {
    const next = load<u32>(nodeAt(index), 20);
    dropNode(index);
    index = next;
  }
  memory.fill(table(segment), 0, SEGMENT);
}

// Takes `wanted` bytes of a free region, `skip` bytes from its start; what is before and behind stays free. False, and
// nothing has changed, without memory for the nodes of these.
// @ts-ignore: decorator
@inline
function take(segment: u32, index: u32, skip: u64, wanted: u64): bool {
  const node = nodeAt(index);
  const left = sizeOf(node) - skip - wanted;
  const front = skip != 0 ? takeNode() : 0;
  if (skip != 0 && front == 0) return false;
  const behind = left != 0 ? takeNode() : 0;
  if (left != 0 && behind == 0) {
    if (front != 0) dropNode(front);
    return false;
  }
  const at = table(segment);
  removeFree(segment, node);
  if (front != 0) {
    const start = nodeAt(front);
    const previous = load<u32>(node, 16);
    store<u64>(start, offsetOf(node));
    store<u32>(start, previous, 16);
    store<u32>(start, index, 20);
    if (previous != 0) store<u32>(nodeAt(previous), front, 20);
    else store<u32>(at, front, 32);
    store<u64>(node, offsetOf(node) + skip);
    store<u32>(node, front, 16);
    insertFree(segment, front, skip);
  }
  if (behind != 0) {
    const rest = nodeAt(behind);
    const next = load<u32>(node, 20);
    store<u64>(rest, offsetOf(node) + wanted);
    store<u32>(rest, index, 16);
    store<u32>(rest, next, 20);
    if (next != 0) store<u32>(nodeAt(next), behind, 16);
    store<u32>(node, behind, 20);
    insertFree(segment, behind, left);
  }
  setFree(node, segment, wanted);
  setInUse(node, index);
  store<u64>(at, load<u64>(at, 8) + wanted, 8);
  store<u32>(at, load<u32>(at, 28) + 1, 28);
  return true;
}

/** Offset of `size` bytes of a segment, the handle at RESULT; or -1 when no region fits. */
export function allocate(segment: u32, size: f64): f64 {
  if (segment >= segments()) return -1;
  const at = table(segment);
  const mask = load<u64>(at, 16);
  const wanted = (<u64>size + mask) & ~mask;
  if (wanted - 1 >= load<u64>(at)) return -1; // also of 0 bytes
  const index = findFree(segment, wanted);
  if (index == 0 || !take(segment, index, 0, wanted)) return -1;
  return <f64>offsetOf(nodeAt(index));
}

/**
 * The `size` bytes from `offset` on, the handle at RESULT; false where one of them is in use or outside the segment, or
 * the offset is no multiple of the alignment. Walks along the regions from where the last such call ended.
 */
export function allocateAt(segment: u32, offset: f64, size: f64): bool {
  const at = table(segment);
  const mask = load<u64>(at, 16);
  const start = <u64>offset;
  const wanted = (<u64>size + mask) & ~mask;
  let index = load<u32>(at, LAST_AT);
  // That region may have joined another or serve another segment by now.
  if (index == 0 || sizeOf(nodeAt(index)) == 0 || segmentOf(nodeAt(index)) != segment) index = load<u32>(at, 32);
  while (index != 0 && offsetOf(nodeAt(index)) > start) index = load<u32>(nodeAt(index), 16);
  while (index != 0 && offsetOf(nodeAt(index)) + sizeOf(nodeAt(index)) <= start) index = load<u32>(nodeAt(index), 20);
  if (index == 0) return false;
  store<u32>(at, index, LAST_AT);
  const node = nodeAt(index);
  const skip = start - offsetOf(node);
  return !inUse(node) && (start & mask) == 0 && wanted <= sizeOf(node) - skip && take(segment, index, skip, wanted);
}

/** The first of `count` segments in the window that fits: its place in the list, the offset in the window; or -1. */
export function allocateFirst(count: u32, size: f64): i32 {
  for (let i: u32 = 0; i < count; i++) {
    const offset = allocate(load<u32>(WINDOW + ((<usize>i) << 2)), size);
    if (offset < 0) continue;
    store<f64>(OFFSETS, offset);
    return <i32>i;
  }
  return -1;
}

/** Allocates each of `count` sizes of the window; offset -1 and handle -1 where none fits. How many did. */
export function allocateMany(count: u32): u32 {
  let done: u32 = 0;
  for (let i: usize = 0; i < <usize>count; i++) {
    const offset = allocate(load<u32>(WINDOW + (i << 2)), load<f64>(SIZES + (i << 3)));
    store<f64>(OFFSETS + (i << 3), offset);
    store<f64>(HANDLES + (i << 3), offset < 0 ? -1 : load<f64>(RESULT));
    done += <u32>(offset >= 0);
  }
  return done;
}

/** Frees a region; false when the handle names none in use. */
export function allocFree(handle: f64): bool {
  let index = find(handle);
  if (index == 0) return false;
  let node = nodeAt(index);
  const segment = segmentOf(node);
  const at = table(segment);
  let size = sizeOf(node);
  store<u64>(at, load<u64>(at, 8) - size, 8);
  store<u32>(at, load<u32>(at, 28) - 1, 28);
  let next = load<u32>(node, 20);
  if (next != 0 && !inUse(nodeAt(next))) {
    const behind = nodeAt(next);
    removeFree(segment, behind);
    size += sizeOf(behind);
    const after = load<u32>(behind, 20);
    dropNode(next);
    next = after;
  }
  const previous = load<u32>(node, 16);
  if (previous != 0 && !inUse(nodeAt(previous))) {
    dropNode(index);
    index = previous;
    node = nodeAt(previous);
    removeFree(segment, node);
    size += sizeOf(node);
  }
  store<u32>(node, next, 20);
  if (next != 0) store<u32>(nodeAt(next), index, 16);
  insertFree(segment, index, size);
  return true;
}

/** Frees `count` handles of the window; how many, fewer where one names no region in use. */
export function allocFreeMany(count: u32): u32 {
  for (let i: u32 = 0; i < count; i++) {
    if (!allocFree(load<f64>(SIZES + ((<usize>i) << 3)))) return i;
  }
  return count;
}

/** Segment of a handle, its offset and size in the window; -1 when the handle names no region in use. */
export function allocLocate(handle: f64): i32 {
  const index = find(handle);
  if (index == 0) return -1;
  const node = nodeAt(index);
  store<f64>(OFFSETS, <f64>offsetOf(node));
  store<f64>(HANDLES, <f64>sizeOf(node));
  return <i32>segmentOf(node);
}

/** Bytes of a segment that are not in use. */
export function allocFreeBytes(segment: u32): f64 {
  const at = table(segment);
  return <f64>(load<u64>(at) - load<u64>(at, 8));
}

/** Capacity, bytes in use, largest free region, free regions and allocations, written to the window's sizes. */
export function allocFigures(segment: u32): void {
  const at = table(segment);
  store<f64>(SIZES, <f64>load<u64>(at));
  store<f64>(SIZES, <f64>load<u64>(at, 8), 8);
  store<f64>(SIZES, <f64>largestFree(segment), 16);
  store<f64>(SIZES, <f64>load<u32>(at, 24), 24);
  store<f64>(SIZES, <f64>load<u32>(at, 28), 32);
}
