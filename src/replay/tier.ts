/**
 * One cache of a cluster: which blocks it holds and which it gives up when a request needs room. What room is, a count
 * of blocks or space in segments, is the owner's business.
 */
import type { EvictionPolicy } from '../eviction/policy.js';

export interface Room {
  /** Makes a place for a block. False when something has to be freed first. */
  take(slot: number): boolean;
  /** Frees the place of a block. */
  give(slot: number): void;
}

/** Room for a number of blocks. */
export function countedRoom(capacity: number): Room {
  let used = 0;
  return {
    take: () => used < capacity && ++used > 0,
    give: () => {
      used--;
    },
  };
}

export class Tier {
  size = 0;
  evictions = 0;
  readonly #policy: EvictionPolicy;
  readonly #room: Room;
  readonly #held: Uint8Array;
  /** Number of the last request that used the slot: blocks of the current one are pinned. */
  readonly #used: Uint32Array;
  #request = 0;

  constructor(slots: number, policy: EvictionPolicy, room: Room) {
    this.#policy = policy;
    this.#room = room;
    this.#held = new Uint8Array(slots);
    this.#used = new Uint32Array(slots);
  }

  /**
   * Uses the blocks of one request, which must fit the tier together, and takes in those it lacks. Returns the blocks
   * that left. Missing blocks first, then held ones, each from the last to the first: under least recently used the
   * chain's head is then the newest, and its tail goes first.
   */
  use(slots: Uint32Array): number[] {
    this.#request++;
    const left: number[] = [];
    const missing: number[] = [];
    for (const slot of slots) {
      this.#used[slot] = this.#request;
      if (!this.#held[slot]) missing.push(slot);
    }
    for (let at = missing.length - 1; at >= 0; at--) {
      while (!this.#room.take(missing[at])) left.push(this.#evict(missing[at]));
      this.#policy.insert(missing[at]);
    }
    for (let at = slots.length - 1; at >= 0; at--) if (this.#held[slots[at]]) this.#policy.touch(slots[at]);
    for (const slot of missing) this.#held[slot] = 1;
    this.size += missing.length;
    return left;
  }

  /** Gives up one block that is not pinned. Pinned ones that the policy names first go back to it as if they were new. */
  #evict(incoming: number): number {
    const pinned: number[] = [];
    let victim = this.#policy.evict(incoming);
    for (; this.#used[victim] === this.#request; victim = this.#policy.evict(incoming)) pinned.push(victim);
    for (const slot of pinned) this.#policy.insert(slot);
    this.#held[victim] = 0;
    this.#room.give(victim);
    this.size--;
    this.evictions++;
    return victim;
  }
}
