// Size classes of a segment's free regions, as in TLSF (M. Masmano and others, "TLSF: a new dynamic memory allocator
// for real-time systems", 2004): one list a class, 32 classes to each power of two (3 % apart; below 32 bytes one class
// a size), a bit for each class that has regions and a bit for each power of two that has such classes. A segment's
// table:
//
//     0  u64  capacity
//     8  u64  bytes in use
//    16  u64  alignment - 1
//    24  u32  free regions
//    28  u32  allocations
//    32  u32  first region
//    36  u32  region where the last allocateAt ended
//    40  u64  powers of two with free regions
//    64  u32  x 44  classes with free regions
//   256  u32  x 44 x 32  first region of a class
import { HEAP } from '../memory';
import { nodeAt, setFree, sizeOf } from './nodes';

const LEVELS: usize = 44;
const LEVEL_MAP: usize = 40;
const CLASS_MAPS: usize = 64;
const HEADS: usize = 256;
export const SEGMENT: usize = HEADS + LEVELS * 128;

/**
 * Regions of a request's own class that are tried before a larger one is split, and up to how many when there is no
 * larger one: only there can a request fail although a region would fit it.
 */
const NEAR: i32 = 8;
const FAR: i32 = 256;

/** In front of the tables: the window through which batches of arguments and results pass (allocator.ts). */
export const WINDOW: usize = HEAP;
export const BATCH: usize = 2048;
export const WINDOW_BYTES: usize = BATCH * 28;

// @ts-ignore: decorator
@inline
export function table(segment: u32): usize {
  return WINDOW + WINDOW_BYTES + <usize>segment * SEGMENT;
}

/** The class that holds regions of this size: power of two << 5 | class within it. */
// @ts-ignore: decorator
@inline
function classOf(size: u64): u32 {
  if (size < 32) return <u32>size;
  const top = <u32>(63 - clz(size));
  return ((top - 4) << 5) | (<u32>(size >>> (top - 5)) & 31);
}

/** Puts a region of `size` bytes into its class. */
export function insertFree(segment: u32, index: u32, size: u64): void {
  const at = table(segment);
  const node = nodeAt(index);
  const cls = classOf(size);
  const head = at + HEADS + (<usize>cls << 2);
  const next = load<u32>(head);
  setFree(node, segment, size);
  store<u32>(node, 0, 24);
  store<u32>(node, next, 28);
  store<u32>(head, index);
  store<u32>(at, load<u32>(at, 24) + 1, 24);
  if (next != 0) {
    store<u32>(nodeAt(next), index, 24);
    return;
  }
  const map = at + CLASS_MAPS + (<usize>(cls >>> 5) << 2);
  store<u32>(map, load<u32>(map) | (<u32>1 << (cls & 31)));
  store<u64>(at, load<u64>(at, LEVEL_MAP) | (<u64>1 << <u64>(cls >>> 5)), LEVEL_MAP);
}

/** Takes a region out of its class. */
export function removeFree(segment: u32, node: usize): void {
  const at = table(segment);
  const previous = load<u32>(node, 24);
  const next = load<u32>(node, 28);
  store<u32>(at, load<u32>(at, 24) - 1, 24);
  if (next != 0) store<u32>(nodeAt(next), previous, 24);
  if (previous != 0) {
    store<u32>(nodeAt(previous), next, 28);
    return;
  }
  const cls = classOf(sizeOf(node));
  store<u32>(at + HEADS + (<usize>cls << 2), next);
  if (next != 0) return;
  const map = at + CLASS_MAPS + (<usize>(cls >>> 5) << 2);
  const left = load<u32>(map) & ~(<u32>1 << (cls & 31));
  store<u32>(map, left);
  if (left == 0) store<u64>(at, load<u64>(at, LEVEL_MAP) & ~(<u64>1 << <u64>(cls >>> 5)), LEVEL_MAP);
}

/** First region of the smallest class above `cls` that has any, or 0. */
// @ts-ignore: decorator
@inline
function above(at: usize, cls: u32): u32 {
  let level = <usize>(cls >>> 5);
  // Bits above the class; the two shifts keep class 31 from shifting by 32, which WebAssembly takes as 0.
  let classes = load<u32>(at + CLASS_MAPS + (level << 2)) & ((<u32>0xffff_ffff << (cls & 31)) << 1);
  if (classes == 0) {
    const levels = load<u64>(at, LEVEL_MAP) & ((<u64>-1 << <u64>level) << 1);
    if (levels == 0) return 0;
    level = <usize>ctz(levels);
    classes = load<u32>(at + CLASS_MAPS + (level << 2));
  }
  return load<u32>(at + HEADS + (((level << 5) | <usize>ctz(classes)) << 2));
}

/**
 * A free region of at least `size` bytes, or 0: one of the request's own class, whose regions are within 3 % of it, so
 * that equal sizes reuse each other's holes exactly; then any of the next class up, where all are large enough.
 */
export function findFree(segment: u32, size: u64): u32 {
  const at = table(segment);
  const cls = classOf(size);
  let candidate = load<u32>(at + HEADS + (<usize>cls << 2));
  for (let looked = 0; candidate != 0 && looked < FAR; looked++) {
    if (looked == NEAR) {
      const larger = above(at, cls);
      if (larger != 0) return larger;
    }
    const node = nodeAt(candidate);
    if (sizeOf(node) >= size) return candidate;
    candidate = load<u32>(node, 28);
  }
  return above(at, cls);
}

/** Size of the largest free region: the only figure that walks a list, that of the highest class. */
export function largestFree(segment: u32): u64 {
  const at = table(segment);
  const levels = load<u64>(at, LEVEL_MAP);
  if (levels == 0) return 0;
  const level = <usize>(63 - clz(levels));
  const cls = (level << 5) | <usize>(31 - clz(load<u32>(at + CLASS_MAPS + (level << 2))));
  let largest: u64 = 0;
  for (let index = load<u32>(at + HEADS + (cls << 2)); index != 0; index = load<u32>(nodeAt(index), 28)) {
    largest = max(largest, sizeOf(nodeAt(index)));
  }
  return largest;
}
