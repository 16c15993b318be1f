/** What loading and saving of one rank share: the store, the bounds, the verdict on the namespace, the counters. */
import { errors } from '../core/errors.js';
import type { ReplicateConfig } from '../master/api.js';
import type { ObjectStore } from '../store/api.js';
import type { CallLimits } from '../transfer/transfer.js';

export interface StoreWorkerContext {
  readonly store: ObjectStore;
  readonly tenant: string | undefined;
  /** How objects are put: replicas, pins. */
  readonly put: ReplicateConfig;
  readonly loadTimeoutMs: number;
  readonly saveTimeoutMs: number;
  /** Bytes of one batch of objects, at most; at least one object. */
  readonly batchBytes: number;
  /** Whether this engine may use the namespace. Never rejects. */
  readonly attached: () => Promise<boolean>;
  readonly stats: StoreWorkerStats;
  /** Told why a load or a save failed; the engine computes on. */
  readonly onError: (error: unknown) => void;
}

export interface StoreWorkerStats {
  loadedBlocks: number;
  loadedBytes: number;
  /** Blocks that were to be loaded and must be computed: missing, corrupt, late, or behind such a one. */
  failedLoadBlocks: number;
  abortedLoads: number;
  savedBlocks: number;
  savedBytes: number;
  /** Blocks that were to be saved and were in the store, or on their way, already. */
  presentBlocks: number;
  failedSaveBlocks: number;
}

/** At most `limit` at a time, in the order of their asking. */
export class Limiter {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** Throws, without having begun, where the turn has not come within `limits`. */
  async run<T>(work: () => Promise<T>, limits: CallLimits = {}): Promise<T> {
    limits.signal?.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#turn(limits);
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }

  #turn({ signal, timeoutMs }: CallLimits): Promise<void> {
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const settle = (then: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
        then();
      };
      const begin = () => settle(resolve);
      const leave = (reason: unknown) => {
        this.#waiting.splice(this.#waiting.indexOf(begin), 1);
        settle(() => reject(reason));
      };
      const aborted = () => leave(signal?.reason);
      this.#waiting.push(begin);
      signal?.addEventListener('abort', aborted);
      if (timeoutMs !== undefined) timer = setTimeout(() => leave(errors.timeout('waiting', timeoutMs)), timeoutMs);
    });
  }
}

/** The chosen hashes, one after another. */
export function pickHashes(hashes: Uint8Array, width: number, indices: readonly number[]): Uint8Array {
  const picked = new Uint8Array(indices.length * width);
  for (const [at, index] of indices.entries())
    picked.set(hashes.subarray(index * width, (index + 1) * width), at * width);
  return picked;
}
