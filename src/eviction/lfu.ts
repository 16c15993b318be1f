/**
 * Least frequently used, among equals the least recently used. Uses are counted while a slot is held and forgotten when
 * it leaves. Slots of the same count share a bucket; the buckets stand in a list by count, so that a use moves a slot to
 * the neighbouring bucket and the victim is the oldest slot of the first one: every step in constant time.
 */
import { Lists } from './lists.js';
import type { EvictionPolicy, PolicyOptions } from './policy.js';

export function lfu({ slots, capacity }: PolicyOptions): EvictionPolicy {
  // One bucket for each held slot at most, and one more for the slot that moves.
  const most = Math.min(slots, capacity) + 1;
  const members = new Lists(slots, most);
  const buckets = new Lists(most, 2);
  const [byCount, free] = [0, 1];
  const countOf = new Float64Array(most);
  const bucketOf = new Int32Array(slots);
  for (let bucket = 0; bucket < most; bucket++) buckets.append(free, bucket);

  function open(count: number): number {
    const bucket = buckets.oldest(free);
    buckets.unlink(bucket);
    countOf[bucket] = count;
    return bucket;
  }

  function join(bucket: number, slot: number): void {
    members.append(bucket, slot);
    bucketOf[slot] = bucket;
  }

  function leave(slot: number): void {
    const bucket = bucketOf[slot];
    members.unlink(slot);
    if (!members.isEmpty(bucket)) return;
    buckets.unlink(bucket);
    buckets.append(free, bucket);
  }

  return {
    insert(slot) {
      let first = buckets.isEmpty(byCount) ? -1 : buckets.oldest(byCount);
      if (first < 0 || countOf[first] !== 1) {
        first = open(1);
        buckets.prepend(byCount, first);
      }
      join(first, slot);
    },
    touch(slot) {
      const bucket = bucketOf[slot];
      const count = countOf[bucket] + 1;
      let target = buckets.after(bucket);
      if (target < 0 || countOf[target] !== count) {
        target = open(count);
        buckets.insertAfter(bucket, target);
      }
      leave(slot);
      join(target, slot);
    },
    evict() {
      const victim = members.oldest(buckets.oldest(byCount));
      leave(victim);
      return victim;
    },
  };
}
