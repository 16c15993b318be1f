/**
 * S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1): new slots enter a
 * small queue of a tenth of the capacity; those used more than once there move to the main queue, the others leave and
 * are remembered as ghosts; a ghost that comes back enters the main queue at once. The main queue gives a slot another
 * round for every use, up to three.
 *
 * Where the paper's queues are full at the same time, its rule "evict from the small queue when it holds at least its
 * share" decides, so one call gives up exactly one slot. The ghosts are the slots that left the small queue within its
 * last |main| evictions: their number is in an array, and a clock tells how long ago that was.
 */
import { Lists } from './lists.js';
import type { EvictionPolicy, PolicyOptions } from './policy.js';

const SMALL = 0;
const MAIN = 1;
const SMALL_SHARE = 0.1;
/** Uses that count: two bits a slot. */
const MAX_USES = 3;

export function s3fifo({ slots, capacity: limit }: PolicyOptions): EvictionPolicy {
  const capacity = Math.min(limit, slots);
  const queues = new Lists(slots, 2);
  const uses = new Uint8Array(slots);
  const smallShare = Math.max(1, Math.floor(capacity * SMALL_SHARE));
  const ghosts = Math.max(0, capacity - smallShare);
  /** When the slot left the small queue, counted in such departures from 1; 0 when it is no ghost. */
  const departed = new Uint32Array(slots);
  let departures = 0;
  let small = 0;

  function enter(queue: number, slot: number): void {
    uses[slot] = 0;
    queues.append(queue, slot);
    if (queue === SMALL) small++;
  }

  /** The slot that leaves the small queue for good, or -1 when it is below its share and the main queue's turn. */
  function leaveSmall(): number {
    while (small >= smallShare || queues.isEmpty(MAIN)) {
      const slot = queues.oldest(SMALL);
      queues.unlink(slot);
      small--;
      if (uses[slot] <= 1) {
        departed[slot] = ++departures;
        return slot;
      }
      enter(MAIN, slot);
    }
    return -1;
  }

  function leaveMain(): number {
    for (;;) {
      const slot = queues.oldest(MAIN);
      queues.unlink(slot);
      if (uses[slot] === 0) return slot;
      uses[slot]--;
      queues.append(MAIN, slot);
    }
  }

  return {
    insert(slot) {
      const isGhost = departed[slot] > 0 && departures - departed[slot] < ghosts;
      departed[slot] = 0;
      enter(isGhost ? MAIN : SMALL, slot);
    },
    touch(slot) {
      if (uses[slot] < MAX_USES) uses[slot]++;
    },
    evict() {
      const slot = leaveSmall();
      return slot >= 0 ? slot : leaveMain();
    },
  };
}
