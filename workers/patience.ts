/**
 * Readers of the shared index and its one writer: a reader that a change overtakes tries again, and gives up with
 * ERR_BUSY after some hundred tries, a fraction of a millisecond. A writer's thread may be descheduled in the middle of a
 * change for longer than that, so a worker sleeps a little and tries on.
 */
import { MooncakeError } from '../src/core/errors.js';
import type { Hashes } from '../src/core/prefix-keys.js';
import type { PrefixMatch } from '../src/core/prefix-match.js';

/** The index itself on its writer's thread, a reader of it on the others. */
export interface Matcher {
  match(hashes: Hashes, options?: { group?: number }): PrefixMatch;
}

const SLEEP_MS = 0.1;
/** A writer that is stuck for this long is an error: ERR_BUSY. */
const PATIENCE_MS = 1000;

let cell: Int32Array | undefined;

function sleep(): void {
  try {
    cell ??= new Int32Array(new SharedArrayBuffer(4));
    Atomics.wait(cell, 0, 0, SLEEP_MS);
  } catch {
    // A page's own thread may not wait: it tries again at once.
  }
}

export function patient(reader: Matcher): Matcher {
  return {
    match(hashes, options) {
      const start = performance.now();
      for (;;) {
        try {
          return reader.match(hashes, options);
        } catch (error) {
          const busy = error instanceof MooncakeError && error.code === 'ERR_BUSY';
          if (!busy || performance.now() - start > PATIENCE_MS) throw error;
          sleep();
        }
      }
    },
  };
}
