/** First in, first out: use does not matter, the slot that was taken in first goes. */
import { Lists } from './lists.js';
import type { EvictionPolicy, PolicyOptions } from './policy.js';

export function fifo({ slots }: PolicyOptions): EvictionPolicy {
  const list = new Lists(slots, 1);
  return {
    insert(slot) {
      list.append(0, slot);
    },
    touch() {},
    evict() {
      const victim = list.oldest(0);
      list.unlink(victim);
      return victim;
    },
  };
}
