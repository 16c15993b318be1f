/**
 * What an eviction policy is: it hears which slots are taken in and used, and names the slot that has to go. It holds
 * no bytes and knows no keys. A slot is a small integer that names one block for good, so a policy keeps its state in
 * typed arrays over slots (lists.ts) and never makes an object for a block.
 *
 * A new policy is one file here and one line in registry.ts.
 */
export interface EvictionPolicy {
  /** A slot that is not held is taken in. The caller has made room for it. */
  insert(slot: number): void;
  /** A held slot was used. */
  touch(slot: number): void;
  /**
   * The slot to give up so that `incoming` fits; the policy has forgotten it when this returns. A policy may answer
   * `incoming` itself: then nothing is given up, and the caller does not take it in. Called only while a slot is held.
   */
  evict(incoming: number): number;
  /**
   * How many slots to give up before one is taken in, with so many held. A policy that leaves it out gives up one when
   * the capacity is reached.
   */
  surplus?(held: number): number;
}

export interface PolicyOptions {
  /** How many slots there are: they are 0 to slots - 1. */
  slots: number;
  /** How many slots may be held at a time; Infinity when nothing is ever evicted. */
  capacity: number;
}

export type PolicyFactory<O = PolicyOptions> = (options: O) => EvictionPolicy;
