/** What puts and gets of many objects share: their arguments, and an end that waits for what is under way. */
import { integer, options as object, string } from '../core/check.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { Keys } from '../core/keys.js';
import { onAbort } from '../pool/abort.js';
import { MAX_TIMEOUT_MS, watch } from '../transfer/limits.js';
import type { CallLimits } from '../transfer/transfer.js';
import type { StoreContext } from './context.js';

/** Objects in one batch, at most: what a client may make the service reserve or answer in one go. */
export const MAX_BATCH = 65536;
/** What ends a call (an end, a revoke) is told to the owner also when the call's time is over: so long it may take, in ms. */
const ENDING_MS = 1000;
/** Bytes copied and summed in one synchronous step. */
export const STEP_BYTES = 2 ** 20;

export function checkKeys(keys: unknown): Keys {
  if (!(keys instanceof Keys)) throw errors.invalidArgument('keys', keys, 'Keys');
  if (keys.length > MAX_BATCH) throw errors.invalidArgument('keys', keys.length, `at most ${MAX_BATCH} keys`);
  return keys;
}

/** The name space of a call: its own, or the store's. */
export function checkTenant(tenant: unknown, context: StoreContext): string {
  return tenant === undefined ? context.tenant : string('tenant', tenant);
}

/** A batch's options, with its stride checked. */
export function checkBatch<T extends { stride: number }>(options: T, largest: number): T {
  if (options === undefined) throw errors.invalidArgument('options', options, 'an object');
  object('options', options);
  integer('stride', options.stride, Math.max(1, largest), 2 ** 47);
  return options;
}

/** The keys at these positions, in this order. */
export function pick(keys: Keys, positions: readonly number[]): Keys {
  return positions.length === keys.length ? keys : Keys.from(positions.map((i) => keys.at(i)));
}

/** The end of a call: its deadline and its caller's signal. */
export class Limits {
  readonly #signal: AbortSignal | undefined;
  readonly #timeoutMs: number;
  readonly #end: number;

  constructor({ signal, timeoutMs }: CallLimits, context: StoreContext) {
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw errors.invalidArgument('signal', signal, 'an AbortSignal');
    }
    this.#signal = signal;
    this.#timeoutMs = timeoutMs === undefined ? context.timeoutMs : integer('timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS);
    this.#end = performance.now() + this.#timeoutMs;
    this.check();
  }

  /** Throws ERR_ABORTED or ERR_TIMEOUT when the call has to end. */
  check(): void {
    if (this.#signal?.aborted) throw errors.aborted(this.#signal.reason);
    if (performance.now() > this.#end) throw errors.timeout('the call', this.#timeoutMs);
  }

  /** Waits for what has a deadline of its own no longer than the call's. */
  async within<T>(work: T | Promise<T>): Promise<T> {
    if (!(work instanceof Promise)) return work;
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = this.rest();
      const stop = watch('the call', { signal, timeoutMs }, reject);
      work.then(resolve, reject).finally(stop);
    });
  }

  /** What is left of the call. */
  rest(): { signal?: AbortSignal; timeoutMs: number } {
    this.check();
    return { signal: this.#signal, timeoutMs: Math.max(1, Math.ceil(this.#end - performance.now())) };
  }

  /** For what has to be said at the end of the call, in time or not. */
  ending(): CallLimits {
    return { timeoutMs: Math.max(ENDING_MS, Math.ceil(this.#end - performance.now())) };
  }

  /** Runs a move between peers with what is left of the call; `end` aborts it as well. */
  async move<T>(end: AbortSignal, work: (limits: CallLimits) => Promise<T>): Promise<T> {
    const { timeoutMs } = this.rest();
    if (end.aborted) throw errors.aborted(end.reason);
    if (!this.#signal) return work({ signal: end, timeoutMs });
    const either = new AbortController();
    const forget = [this.#signal, end].map((signal) => signal && onAbort(signal, () => either.abort(signal.reason)));
    try {
      return await work({ signal: either.signal, timeoutMs });
    } finally {
      for (const each of forget) each?.();
    }
  }
}

/** The moves of one batch: whoever ends the batch waits for them. */
export class UnderWay {
  readonly #what: string;
  readonly #running = new Set<Promise<unknown>>();
  #end: AbortController | undefined;
  #open = true;

  constructor(what: string) {
    this.#what = what;
  }

  /** Aborts when the batch is aborted. */
  get signal(): AbortSignal {
    return (this.#end ??= new AbortController()).signal;
  }

  /** Throws ERR_CLOSED when the batch has ended. Asked before every step that touches an object. */
  check(): void {
    if (!this.#open) throw errors.closed(this.#what);
  }

  /** Ends the moves under way, and those to come; the batch is ended by its owner. */
  interrupt(reason: MooncakeError): void {
    (this.#end ??= new AbortController()).abort(reason);
  }

  async track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    try {
      return await work;
    } finally {
      this.#running.delete(work);
    }
  }

  /** Ends the batch when its moves have ended by themselves. False where it had ended before. */
  async finish(): Promise<boolean> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    const open = this.#open;
    this.#open = false;
    return open;
  }

  /** Ends the batch at once; resolves when no move touches an object any more. False where it had ended before. */
  async abort(): Promise<boolean> {
    const open = this.#open;
    this.#open = false;
    this.#end?.abort();
    await Promise.allSettled(this.#running);
    return open;
  }
}
