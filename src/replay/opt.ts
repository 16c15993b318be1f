/**
 * The offline optimum: Belady's rule with the right to decline. When room is needed, the block goes whose next use is
 * farthest in the future, and that may be the incoming block itself, which is then not kept.
 *
 * What it is a bound of. A hit is the leading run of present blocks, while Belady's rule maximises present blocks
 * wherever they stand in the prompt. On a chained trace (an id determines all ids before it; trace.ts refuses others)
 * the two are the same, so the hit rate computed here is exact, not an estimate: no policy, however clever, has a higher
 * one with this capacity.
 *
 * 1. Blocks of a leading run are used before the request evicts anything, so a policy's leading runs are never more than
 *    its accesses that find their block, and Belady's rule with declining has the most of those of all policies (blocks
 *    have equal sizes; it is the greedy solution of the interval packing that this problem is).
 * 2. Wherever a block is used, its parent was used just before. So a block's next use comes after its parent's next use,
 *    and of blocks that are never used again the deeper one goes first: what is held is closed under prefix at every
 *    request's start, so every access that finds its block belongs to the leading run.
 *
 * The keys of a max-heap over the held blocks are the positions of their next uses in the trace.
 */
import type { EvictionPolicy, PolicyOptions } from '../eviction/policy.js';
import type { Trace } from './trace.js';

export interface OfflineOptions extends PolicyOptions {
  /** The accesses to come: every block of `trace` is touched or inserted in order. */
  trace: Trace;
}

/** For each position of `trace.blocks` the key of that block until its next use; larger goes first. */
function nextUses({ blocks, offsets, requests, unique }: Trace): Float64Array {
  const keys = new Float64Array(blocks.length);
  const next = new Float64Array(unique).fill(-1);
  for (let request = requests - 1; request >= 0; request--) {
    for (let at = offsets[request + 1] - 1; at >= offsets[request]; at--) {
      const block = blocks[at];
      const depth = at - offsets[request];
      keys[at] = next[block] < 0 ? blocks.length + depth : next[block];
      next[block] = at;
    }
  }
  return keys;
}

const uses = new WeakMap<Trace, Float64Array>();

export function opt({ slots, capacity, trace }: OfflineOptions): EvictionPolicy {
  let keyAt = uses.get(trace);
  if (!keyAt) uses.set(trace, (keyAt = nextUses(trace)));
  const future = keyAt;
  const key = new Float64Array(slots);
  const heap = new Int32Array(Math.min(slots, capacity));
  const place = new Int32Array(slots);
  let size = 0;
  let position = 0;

  function put(slot: number, at: number): void {
    heap[at] = slot;
    place[slot] = at;
  }

  /** Moves `slot` from the free place `at` towards the root while its parent's next use is nearer. */
  function rise(slot: number, at: number): void {
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (key[heap[above]] >= key[slot]) break;
      put(heap[above], at);
      at = above;
    }
    put(slot, at);
  }

  /** Moves `slot` from the free place `at` towards the leaves while a child's next use is farther. */
  function sink(slot: number, at: number): void {
    for (;;) {
      let below = 2 * at + 1;
      if (below >= size) break;
      if (below + 1 < size && key[heap[below + 1]] > key[heap[below]]) below++;
      if (key[heap[below]] <= key[slot]) break;
      put(heap[below], at);
      at = below;
    }
    put(slot, at);
  }

  return {
    insert(slot) {
      key[slot] = future[position++];
      rise(slot, size++);
    },
    touch(slot) {
      // Its next use was now, the nearest of all; the new one is farther.
      key[slot] = future[position++];
      rise(slot, place[slot]);
    },
    evict(incoming) {
      const victim = heap[0];
      if (future[position] >= key[victim]) {
        position++;
        return incoming;
      }
      const last = heap[--size];
      if (size > 0) sink(last, 0);
      return victim;
    },
  };
}
