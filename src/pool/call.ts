/** One call on its way through the pool: its pieces, their results, and the one place where it is settled. */
import { errors, type MooncakeError } from '../core/errors.js';
import { onAbort } from './abort.js';
import type { Payload, TaskKind } from './wire.js';

/** Bounded work that one worker does whole. */
export interface Piece extends Payload {
  kind: TaskKind;
  /** What the cost of a unit is learnt under: the kind and what changes its cost, `hash:sha256_cbor`. */
  costKind: string;
  units: number;
}

export interface CallOptions {
  /** Rejects the call with ERR_ABORTED: what waits is dropped, what runs is not waited for. */
  signal?: AbortSignal;
  /** Rejects the call with ERR_TIMEOUT when it has not ended after this many milliseconds. */
  timeoutMs?: number;
}

export class Call {
  readonly pieces: readonly Piece[];
  readonly created = performance.now();
  readonly promise: Promise<Payload[]>;
  /** The first piece that no worker has yet. */
  next = 0;
  /** Estimated nanoseconds of each piece, as the queue counted them. */
  readonly costs: number[];
  #results: Payload[];
  #left: number;
  #settled = false;
  #resolve!: (results: Payload[]) => void;
  #reject!: (error: unknown) => void;
  #release: (ok: boolean) => void;

  /** `onSettled` runs once, whichever way the call ends. */
  constructor(
    pieces: readonly Piece[],
    costs: number[],
    options: CallOptions,
    onSettled: (call: Call, ok: boolean) => void,
  ) {
    this.pieces = pieces;
    this.costs = costs;
    this.#results = new Array(pieces.length);
    this.#left = pieces.length;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { signal, timeoutMs } = options;
    const abort = () => this.fail(errors.aborted(signal?.reason));
    const unhear = signal && onAbort(signal, abort);
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => this.fail(errors.timeout(pieces[0].kind, timeoutMs)), timeoutMs);
    this.#release = (ok) => {
      unhear?.();
      clearTimeout(timer);
      onSettled(this, ok);
    };
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** Takes the result of one piece; the last one settles the call. */
  deliver(piece: number, result: Payload): void {
    if (this.#settled) return;
    this.#results[piece] = result;
    if (--this.#left > 0) return;
    this.#settled = true;
    this.#release(true);
    this.#resolve(this.#results);
  }

  fail(error: MooncakeError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#results = [];
    this.#release(false);
    this.#reject(error);
  }
}
