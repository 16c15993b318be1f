/**
 * Registered memory through which bytes pass whose own memory is not registered, in windows of one size. Registering what a
 * caller hands over would bind his buffer to this thread for good; a pass through a window costs the copy that the
 * checksum's pass over the bytes pays for anyway, and the next window is filled while this one is on its way.
 */

import { Turns } from '../transfer/turns.js';
import type { Limits } from './batch.js';
import { ownMemory, type SegmentMemory } from './memory.js';

/** Bytes of a window. */
export const WINDOW_BYTES = 2 ** 19;

export interface Window {
  /** Its number in the transfer, and where in it the window begins. */
  readonly segment: number;
  readonly offset: number;
  readonly memory: SegmentMemory;
  release(): void;
}

export class Staging {
  readonly #memory: SegmentMemory;
  readonly #segment: number;
  /** Where free windows begin. */
  readonly #turns: Turns<number>;
  readonly #borrow: (memory: Uint8Array) => number;

  /**
   * Takes as many windows as fit into `bytes`, two at least. `borrow` registers them, and new memory for the time of a call,
   * with the transfer by which they are moved.
   */
  constructor(bytes: number, borrow: (memory: Uint8Array) => number) {
    this.#borrow = borrow;
    const windows = Math.max(2, Math.floor(bytes / WINDOW_BYTES));
    this.#memory = ownMemory(windows * WINDOW_BYTES, true);
    this.#segment = borrow(this.#memory.bytes);
    this.#turns = new Turns(Array.from({ length: windows }, (_, i) => (windows - 1 - i) * WINDOW_BYTES));
  }

  /** A window, at once or when one is free; those who wait get them in their order. Whoever holds one waits for no other. */
  async take(limits: Limits): Promise<Window> {
    const offset = this.#turns.take();
    if (offset !== undefined) return this.#window(offset);
    const { given, leave } = this.#turns.wait();
    try {
      return this.#window(await limits.within(given));
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** Registers memory that nobody else has; its number in the transfer. */
  borrow(memory: Uint8Array): number {
    return this.#borrow(memory);
  }

  #window(offset: number): Window {
    let held = true;
    const release = () => {
      if (held) this.#turns.give(offset);
      held = false;
    };
    return { segment: this.#segment, offset, memory: this.#memory, release };
  }
}
