/**
 * Long copies give the event loop its turn: all calls of a store share one budget of bytes, and whoever finds it used
 * up waits until timers and sockets have been served. So neither one big value nor a thousand small ones started
 * together keep heartbeats and other calls waiting for longer than a few milliseconds.
 */

import { addon } from './native-memory.js';

/** Bytes copied and summed between two turns: some 2 to 4 ms, whoever does it. */
const BUDGET = (addon ? 16 : 8) * 2 ** 20;
/** What a piece costs beside its bytes. */
const PIECE_COST = 2048;

export class Pacer {
  #used = 0;
  #turn: Promise<void> | undefined;

  /** The budget is used up: `await turn()` first. */
  get full(): boolean {
    return this.#used >= BUDGET;
  }

  spend(bytes: number): void {
    this.#used += bytes + PIECE_COST;
  }

  /** Resolves after the event loop's next turn. */
  turn(): Promise<void> {
    return (this.#turn ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#used = 0;
        this.#turn = undefined;
        resolve();
      });
    }));
  }
}
