/** Decodes that came before their prefill: each waits for its transfer, until its own deadline. */
import { errors, type MooncakeError } from '../core/errors.js';
import { unknown } from './handover.js';
import type { Wanted } from './handover-wire.js';

interface Waiter<T> {
  readonly by: Wanted;
  resolve(value: T): void;
  reject(error: MooncakeError): void;
}

const MAX_WAITERS = 1 << 14;

/** Whether two wants are those of one request; its ranks share one. */
export const isSame = (a: Wanted, b: Wanted) => a.engine === b.engine && a.request === b.request;

export class Waiting<T> {
  readonly #byTransfer = new Map<string, Set<Waiter<T>>>();
  #count = 0;

  /** Throws ERR_TIMEOUT, ERR_ABORTED, ERR_QUEUE_FULL, or what `fail` was told. */
  wait(by: Wanted, timeoutMs: number, signal: AbortSignal): Promise<T> {
    const { transfer } = by;
    if (signal.aborted) return Promise.reject(errors.aborted(signal.reason));
    if (this.#count === MAX_WAITERS) return Promise.reject(errors.queueFull(MAX_WAITERS));
    return new Promise((resolve, reject) => {
      const waiter: Waiter<T> = {
        by,
        resolve: (value) => settle(() => resolve(value)),
        reject: (error) => settle(() => reject(error)),
      };
      const giveUp = () => waiter.reject(errors.aborted(signal.reason));
      const late = () => waiter.reject(errors.timeout(`waiting for the prefill of transfer ${transfer}`, timeoutMs));
      const timer = setTimeout(late, timeoutMs).unref();
      const settle = (how: () => void) => {
        if (!this.#leave(waiter)) return;
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        how();
      };
      const waiters = this.#byTransfer.get(transfer) ?? new Set();
      this.#byTransfer.set(transfer, waiters.add(waiter));
      this.#count++;
      signal.addEventListener('abort', giveUp);
    });
  }

  /** How many wait. */
  get count(): number {
    return this.#count;
  }

  has(transfer: string): boolean {
    return this.#byTransfer.has(transfer);
  }

  resolve(transfer: string, value: T): void {
    for (const waiter of [...(this.#byTransfer.get(transfer) ?? [])]) waiter.resolve(value);
  }

  /** Ends the waiting for a transfer: everybody's, or that of one request. */
  fail(transfer: string, why: string, by?: Wanted): void {
    for (const waiter of [...(this.#byTransfer.get(transfer) ?? [])]) {
      if (by === undefined || isSame(by, waiter.by)) waiter.reject(unknown('transfer', transfer, why));
    }
  }

  failAll(why: string): void {
    for (const transfer of [...this.#byTransfer.keys()]) this.fail(transfer, why);
  }

  /** False where it had left before. */
  #leave(waiter: Waiter<T>): boolean {
    const { transfer } = waiter.by;
    const waiters = this.#byTransfer.get(transfer);
    if (!waiters?.delete(waiter)) return false;
    this.#count--;
    if (waiters.size === 0) this.#byTransfer.delete(transfer);
    return true;
  }
}
