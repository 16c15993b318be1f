/**
 * Blocks of requests that are gone, kept because a connector still reads them (sending) or writes them (receiving). Each
 * reason is a user of its own: a block is free when the last has ended.
 */
import type { BlockPool } from './block-pool.js';

export type FreeDelay = 'sending' | 'receiving';

export class DelayedFrees {
  readonly #pool: BlockPool;
  readonly #kept: Record<FreeDelay, Map<string, readonly number[]>> = { sending: new Map(), receiving: new Map() };

  constructor(pool: BlockPool) {
    this.#pool = pool;
  }

  /** Requests whose blocks are kept. */
  get size(): number {
    return new Set([...this.#kept.sending.keys(), ...this.#kept.receiving.keys()]).size;
  }

  /** Blocks that are kept, each counted once. */
  get blocks(): number {
    return new Set([...this.#kept.sending.values(), ...this.#kept.receiving.values()].flat()).size;
  }

  has(requestId: string): boolean {
    return this.#kept.sending.has(requestId) || this.#kept.receiving.has(requestId);
  }

  /** Takes the request's blocks over from whoever used them: they are released when every delay has ended. */
  take(requestId: string, blocks: readonly number[], delays: readonly FreeDelay[]): void {
    for (const delay of delays) {
      this.#pool.retain(blocks);
      this.#kept[delay].set(requestId, blocks);
    }
    this.#pool.release(blocks);
  }

  /** A connector has finished with the request's blocks; what was not kept is passed over. */
  end(requestId: string, delay: FreeDelay): void {
    const blocks = this.#kept[delay].get(requestId);
    if (blocks === undefined) return;
    this.#kept[delay].delete(requestId);
    this.#pool.release(blocks);
  }
}
