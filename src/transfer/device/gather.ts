/** Parts of one move, several under way at once: what they moved together, and what went wrong first. */
import type { MoveReport } from '../transfer.js';

export class Gather {
  readonly #started = performance.now();
  readonly #running = new Set<Promise<void>>();
  readonly #failures: unknown[] = [];
  #bytes = 0;
  #verifiedBytes = 0;

  get failed(): boolean {
    return this.#failures.length > 0;
  }

  start(work: () => Promise<MoveReport | undefined>, ended = () => {}): void {
    const task = work()
      .then((moved) => {
        this.#bytes += moved?.bytes ?? 0;
        this.#verifiedBytes += moved?.verifiedBytes ?? 0;
      })
      .catch((error) => this.fail(error))
      .finally(() => {
        ended();
        this.#running.delete(task);
      });
    this.#running.add(task);
  }

  fail(error: unknown): void {
    this.#failures.push(error);
  }

  /** Waits for everything under way, also where something has failed, which it throws then. */
  async ended(): Promise<MoveReport> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.failed) throw this.#failures[0];
    const milliseconds = performance.now() - this.#started;
    return { bytes: this.#bytes, verifiedBytes: this.#verifiedBytes, milliseconds };
  }
}
