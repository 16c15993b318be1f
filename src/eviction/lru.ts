/** Least recently used: one list, a used slot moves to its end, the front goes. */
import { Lists } from './lists.js';
import type { EvictionPolicy, PolicyOptions } from './policy.js';

export function lru({ slots }: PolicyOptions): EvictionPolicy {
  const list = new Lists(slots, 1);
  return {
    insert(slot) {
      list.append(0, slot);
    },
    touch(slot) {
      list.unlink(slot);
      list.append(0, slot);
    },
    evict() {
      const victim = list.oldest(0);
      list.unlink(victim);
      return victim;
    },
  };
}
