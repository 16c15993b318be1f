/**
 * Copies between memory of this process, gathered and made together by all processors that there are, where the accelerator is
 * there. What is gathered must be made (`make`) before the event loop gets its turn: until then nobody takes memory away.
 */
import { type Addon, NO_SUM } from '../native/addon.js';
import type { Run } from './coverage.js';
import { addon, STREAMING_BYTES } from './native-memory.js';

export class Copies {
  readonly #addon: Addon;
  #views: Uint8Array[] = [];
  #which: number[] = [];
  readonly #runs = new Map<Run, number>();

  private constructor(native: Addon) {
    this.#addon = native;
  }

  /** Undefined where there is nobody to share the work with. */
  static gather(): Copies | undefined {
    return addon && new Copies(addon);
  }

  /** Copies `source` to `destination` (same length); continues the sum of `run`, where there is one. */
  add(destination: Uint8Array, source: Uint8Array, run?: Run): void {
    let sum = NO_SUM;
    if (run !== undefined) {
      sum = this.#runs.get(run) ?? this.#runs.size;
      this.#runs.set(run, sum);
    }
    this.#views.push(destination, source);
    this.#which.push(sum);
  }

  make(): void {
    if (this.#which.length === 0) return;
    const sums = BigUint64Array.from(this.#runs.keys(), ({ crc }) => crc);
    this.#addon.copyPieces(this.#views, Uint32Array.from(this.#which), sums, STREAMING_BYTES);
    for (const [run, sum] of this.#runs) run.crc = sums[sum];
    this.#views = [];
    this.#which = [];
    this.#runs.clear();
  }
}
