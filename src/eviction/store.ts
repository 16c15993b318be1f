/**
 * As the store evicts (src/master/eviction.ts), in blocks of one size and without leases or pins: the least recently used
 * go, a share of all at a time, before a block is taken in that would fill more than the watermark.
 */
import { lru } from './lru.js';
import type { EvictionPolicy, PolicyOptions } from './policy.js';

/** Most objects that one run gives up, whatever the share: a put waits for it. */
const MAX_BATCH = 1024;

/** How many objects a run gives up. */
export function evictionBatch(objects: number, evictionRatio: number): number {
  return Math.min(Math.ceil(objects * evictionRatio), MAX_BATCH);
}

export interface StorePolicyOptions extends PolicyOptions {
  /** Share of the capacity that may be filled. Default 0.90. */
  evictionHighWatermark?: number;
  /** Share of the blocks that go at a time, at least one and at most 1,024. Default 0.05. */
  evictionRatio?: number;
}

export function store(options: StorePolicyOptions): EvictionPolicy {
  const { capacity, evictionHighWatermark = 0.9, evictionRatio = 0.05 } = options;
  return {
    ...lru(options),
    surplus: (held) => ((held + 1) / capacity > evictionHighWatermark ? evictionBatch(held, evictionRatio) : 0),
  };
}
