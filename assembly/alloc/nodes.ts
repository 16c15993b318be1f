// Nodes: one for every region of a segment, in use or free, in an array that only grows. A node is 32 bytes:
//
//   0  u64  offset
//   8  u64  size (48 bits) | segment (15 bits) | in use (1 bit)
//  16  u32  region before it in the segment, 0 when it is the first
//  20  u32  region behind it, 0 when it is the last
//  24  u32  free: previous of its size class      in use: stamp
//  28  u32  free: next of its size class          unused node: next unused
//
// A handle is the node's index (27 bits) and the stamp that this allocation drew (26 bits): 53 bits, a safe integer in
// JavaScript. A region freed twice is no longer in use; a node taken again has another stamp.
//
// The arena's header, at HEADER:
//
//   0  u32  address of node 0 (node 0 is never used: index 0 means "none")
//   4  u32  nodes ever taken, node 0 included
//   8  u32  nodes that the memory has room for
//  12  u32  first unused node
//  16  u32  last stamp
//  20  u32  tables of segments
//  24  f64  handle of the last allocation
import { ensure, HEADER } from '../memory';

export const NODE: usize = 32;
export const RESULT: usize = HEADER + 24;

const INDEX_BITS: u64 = 27;
const MAX_NODES: u32 = 1 << 27;
const STAMP_MASK: u32 = (1 << 26) - 1;
const GROW_MIN: u32 = 2048;

const SIZE_MASK: u64 = 0xffff_ffff_ffff;
const SEGMENT_MASK: u64 = 0x7fff;
const IN_USE: u64 = 1 << 63;

/** Starts an empty node array at `base`, behind the tables of `segments`; stamps follow `seed`. */
export function startNodes(base: usize, segments: u32, seed: u32): void {
  store<u32>(HEADER, <u32>base);
  store<u32>(HEADER, 1, 4);
  store<u32>(HEADER, 1, 8);
  store<u32>(HEADER, 0, 12);
  store<u32>(HEADER, seed & STAMP_MASK, 16);
  store<u32>(HEADER, segments, 20);
}

// @ts-ignore: decorator
@inline
export function segments(): u32 {
  return load<u32>(HEADER, 20);
}

// @ts-ignore: decorator
@inline
export function nodeAt(index: u32): usize {
  return <usize>load<u32>(HEADER) + <usize>index * NODE;
}

// @ts-ignore: decorator
@inline
export function offsetOf(node: usize): u64 {
  return load<u64>(node);
}

// @ts-ignore: decorator
@inline
export function sizeOf(node: usize): u64 {
  return load<u64>(node, 8) & SIZE_MASK;
}

// @ts-ignore: decorator
@inline
export function segmentOf(node: usize): u32 {
  return <u32>((load<u64>(node, 8) >>> 48) & SEGMENT_MASK);
}

// @ts-ignore: decorator
@inline
export function inUse(node: usize): bool {
  return <i64>load<u64>(node, 8) < 0;
}

// @ts-ignore: decorator
@inline
export function setFree(node: usize, segment: u32, size: u64): void {
  store<u64>(node, size | (<u64>segment << 48), 8);
}

/** Marks a region as allocated and leaves its handle at RESULT. */
// @ts-ignore: decorator
@inline
export function setInUse(node: usize, index: u32): void {
  const stamp = (load<u32>(HEADER, 16) + 1) & STAMP_MASK;
  store<u32>(HEADER, stamp, 16);
  store<u64>(node, load<u64>(node, 8) | IN_USE, 8);
  store<u32>(node, stamp, 24);
  store<f64>(RESULT, <f64>(((<u64>stamp) << INDEX_BITS) | <u64>index));
}

/** Index of the region in use that `handle` names, or 0. */
export function find(handle: f64): u32 {
  const bits = <u64>handle;
  const index = <u32>bits & (MAX_NODES - 1);
  if (index == 0 || index >= load<u32>(HEADER, 4)) return 0;
  const node = nodeAt(index);
  return inUse(node) && load<u32>(node, 24) == <u32>(bits >>> INDEX_BITS) ? index : 0;
}

/** An unused node, or 0 when the memory cannot grow. */
export function takeNode(): u32 {
  const unused = load<u32>(HEADER, 12);
  if (unused != 0) {
    store<u32>(HEADER, load<u32>(nodeAt(unused), 28), 12);
    return unused;
  }
  const index = load<u32>(HEADER, 4);
  if (index >= load<u32>(HEADER, 8) && !grow(index)) return 0;
  store<u32>(HEADER, index + 1, 4);
  return index;
}

/** Makes room for an eighth more nodes, or for the few that the memory's limit still allows. */
function grow(have: u32): bool {
  for (let more = max(GROW_MIN, have >>> 3); more > 0; more >>>= 1) {
    if (have + more > MAX_NODES || !ensure(<u64>load<u32>(HEADER) + <u64>(have + more) * NODE)) continue;
    store<u32>(HEADER, have + more, 8);
    return true;
  }
  return false;
}

export function dropNode(index: u32): void {
  const node = nodeAt(index);
  store<u64>(node, 0, 8);
  store<u32>(node, load<u32>(HEADER, 12), 28);
  store<u32>(HEADER, index, 12);
}
