/** All ranks of an engine, as its scheduler half tells each of them; whoever asks before waits. */
import { errors, type MooncakeError } from '../core/errors.js';
import type { RankInfo } from './handover.js';

interface Waiter {
  resolve(ranks: readonly RankInfo[]): void;
  reject(error: MooncakeError): void;
}

export class RankRoster {
  #ranks: readonly RankInfo[] | undefined;
  readonly #waiting = new Set<Waiter>();
  #closed = false;

  set(ranks: readonly RankInfo[]): void {
    this.#ranks = ranks;
    for (const { resolve } of [...this.#waiting]) resolve(ranks);
  }

  /** Throws ERR_ABORTED when the signal fires before the ranks are known. */
  get(signal: AbortSignal): Promise<readonly RankInfo[]> {
    if (this.#closed) return Promise.reject(errors.closed('the engine'));
    if (this.#ranks !== undefined) return Promise.resolve(this.#ranks);
    if (signal.aborted) return Promise.reject(errors.aborted(signal.reason));
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(waiter);
        signal.removeEventListener('abort', abort);
      };
      const abort = () => waiter.reject(errors.aborted(signal.reason));
      const waiter: Waiter = {
        resolve: (ranks) => {
          leave();
          resolve(ranks);
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      this.#waiting.add(waiter);
      signal.addEventListener('abort', abort);
    });
  }

  close(): void {
    this.#closed = true;
    for (const { reject } of [...this.#waiting]) reject(errors.closed('the engine'));
  }
}
