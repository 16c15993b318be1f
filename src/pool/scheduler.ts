/**
 * The scheduler behind both doors: a bounded queue of calls, a few batches in flight, and the choice between this thread
 * and a worker. It knows nothing of threads: a door (piscina.ts, comlink.ts) carries batches to them.
 *
 *   call = pieces ──► queue ──► batch in a lane ──► door ──► worker
 *
 * A call comes cut into pieces of bounded work, so that an abort or a deadline leaves little running for nothing. Pieces
 * of many small calls travel as one batch when the workers are behind, so that a message costs little per prompt; a batch
 * takes no more than its lane's share of what waits. Each worker has two lanes: it finds its next batch when it ends
 * one, whatever this thread is doing.
 */
import { errors, type MooncakeError } from '../core/errors.js';
import { Call, type CallOptions, type Piece } from './call.js';
import { CostModel } from './cost.js';
import { LANE_BYTES, Lane } from './lanes.js';
import { Quantiles } from './quantiles.js';
import {
  type Batch,
  type ErrorRecord,
  isCloneable,
  type Job,
  type Payload,
  packError,
  type Reply,
  unpackError,
} from './wire.js';

/** Carries batches to workers. */
export interface Door {
  readonly threads: number;
  /** Rejects with ERR_WORKER when the worker that had the batch is gone, and for no other reason. */
  run(batch: Batch): Promise<Reply>;
  /** Ends the workers; what they still run is lost. */
  close(): Promise<void>;
}

export interface SchedulerOptions {
  door: Door;
  arena?: SharedArrayBuffer;
  lanes: number;
  maxQueue: number;
  onFull: 'wait' | 'throw';
  inline: 'auto' | 'always' | 'never';
  /** Runs a piece on this thread. */
  runHere: (piece: Piece) => Payload;
}

export interface PoolStats {
  threads: number;
  /** Calls of which some part has not reached a worker yet. */
  queued: number;
  /** Batches in flight. */
  running: number;
  /** Calls ended since the pool was made: well, with an error, and those of them that ran on the calling thread. */
  completed: number;
  failed: number;
  inline: number;
  /** Milliseconds from the call to its first piece's dispatch, over the last 1,024 calls that went to workers. */
  wait: { p50: number; p99: number };
  /** What the pool has learnt: the round trip to a worker beside the work, and nanoseconds per unit by kind of work. */
  roundTripUs: number;
  nsPerUnit: Record<string, number>;
}

/** Batches a worker holds at most: the one it runs and the next. */
export const DEPTH = 2;
/** A batch aims at this much work: long against its message (some 25 us), short against a deadline. */
const BATCH_NS = 2_000_000;
/** Inputs fill at most this much of a lane: results lie behind them, or travel with the message. */
const LANE_INPUTS = LANE_BYTES / 2;
/** Work of unknown cost counts as this many nanoseconds a unit. */
const UNKNOWN_NS = 500;
/** Empty batches sent at the start, to measure the round trip. */
const PINGS = 9;

interface Sent {
  call: Call;
  piece: number;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #queue = new Set<Call>();
  readonly #active = new Set<Call>();
  readonly #free: number[];
  readonly #cost = new CostModel();
  readonly #waits = new Quantiles();
  readonly #counts = { completed: 0, failed: 0, inline: 0 };
  /** Estimated nanoseconds of the pieces that wait. */
  #backlog = 0;
  #roomWaiters: (() => void)[] = [];
  #idleWaiters: (() => void)[] = [];
  #closing?: Promise<number[]>;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#free = Array.from({ length: options.lanes }, (_, lane) => lane);
    if (options.inline === 'auto') void this.#ping(PINGS);
  }

  /** Runs the pieces, here or in workers; their results in order. Rejects with the first error of a piece. */
  async run(pieces: readonly Piece[], options: CallOptions): Promise<Payload[]> {
    const { inline, onFull, maxQueue } = this.#options;
    if (this.#closing) throw errors.closed('the pool');
    if (options.signal?.aborted) throw errors.aborted(options.signal.reason);
    if (inline !== 'never' && (inline === 'always' || !this.#worthWorker(pieces))) return this.#runHere(pieces);
    if (onFull === 'throw' && this.#queue.size >= maxQueue) throw errors.queueFull(maxQueue);
    const costs = pieces.map(
      ({ costKind, units }) => this.#cost.estimate(costKind, units) ?? Math.max(1, units) * UNKNOWN_NS,
    );
    const call = new Call(pieces, costs, options, (settled, ok) => this.#forget(settled, ok));
    for (const cost of costs) this.#backlog += cost;
    this.#queue.add(call);
    this.#active.add(call);
    this.#dispatch();
    return call.promise;
  }

  /** Resolves when the queue has room: what a producer awaits between calls. */
  async ready(): Promise<void> {
    if (this.#queue.size < this.#options.maxQueue || this.#closing) return;
    await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
  }

  /**
   * Takes no more calls; ends when those taken have ended, or at once with `force` (they reject with ERR_CLOSED). The
   * lanes in which nothing was running at the end.
   */
  close(force: boolean): Promise<number[]> {
    const closing = (this.#closing ??= this.#drain());
    if (force) for (const call of [...this.#active]) call.fail(errors.closed('the pool'));
    return closing;
  }

  stats(): PoolStats {
    return {
      threads: this.#options.door.threads,
      queued: this.#queue.size,
      running: this.#options.lanes - this.#free.length,
      ...this.#counts,
      wait: { p50: this.#waits.at(0.5), p99: this.#waits.at(0.99) },
      roundTripUs: this.#cost.roundTripNs / 1000,
      nsPerUnit: this.#cost.nsPerUnit,
    };
  }

  #worthWorker(pieces: readonly Piece[]): boolean {
    let units = 0;
    for (const piece of pieces) units += piece.units;
    return this.#cost.worthWorker(pieces[0].costKind, units);
  }

  #runHere(pieces: readonly Piece[]): Payload[] {
    this.#counts.inline++;
    try {
      const results = pieces.map((piece) => {
        const start = performance.now();
        const result = this.#options.runHere(piece);
        this.#cost.observe(piece.costKind, piece.units, (performance.now() - start) * 1e6);
        return result;
      });
      this.#counts.completed++;
      return results;
    } catch (error) {
      this.#counts.failed++;
      throw error;
    }
  }

  /** A settled call leaves the queue, with what of it still waited. */
  #forget(call: Call, ok: boolean): void {
    this.#counts[ok ? 'completed' : 'failed']++;
    for (; call.next < call.pieces.length; call.next++) this.#backlog -= call.costs[call.next];
    this.#queue.delete(call);
    this.#active.delete(call);
    this.#announce();
  }

  #announce(): void {
    if (this.#queue.size < this.#options.maxQueue || this.#closing) {
      for (const resolve of this.#roomWaiters.splice(0)) resolve();
    }
    if (this.#active.size === 0) for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  #dispatch(): void {
    while (this.#free.length > 0 && this.#queue.size > 0) this.#send(this.#free.pop() as number);
  }

  #send(index: number): void {
    const { arena, lanes, door } = this.#options;
    const lane = new Lane(arena, index);
    const limit = Math.min(BATCH_NS, this.#backlog / (this.#free.length + 1));
    const now = performance.now();
    const jobs: Job[] = [];
    const sent: Sent[] = [];
    let cost = 0;
    for (const call of this.#queue) {
      while (call.next < call.pieces.length && (cost === 0 || (cost < limit && lane.used < LANE_INPUTS))) {
        if (call.next === 0) this.#waits.add(now - call.created);
        const piece = call.next++;
        this.#backlog -= call.costs[piece];
        const { kind, arrays, rest } = call.pieces[piece];
        try {
          jobs.push({ kind, arrays: arrays.map((array) => lane.place(array)), rest });
        } catch {
          // Memory that the caller gave away while the call waited.
          this.#runRefused([{ call, piece }]);
          continue;
        }
        sent.push({ call, piece });
        cost += call.costs[piece];
      }
      if (call.next < call.pieces.length) break;
      this.#queue.delete(call);
    }
    if (this.#queue.size === 0) this.#backlog = 0;
    // Only a batch that finds an idle worker measures the round trip; the others wait for the batch before them.
    const alone = lanes - this.#free.length <= door.threads;
    this.#announce();
    door
      .run({ jobs, lane: arena ? index : -1, top: lane.top })
      .then(
        (reply) => this.#receive(lane, sent, reply, alone ? performance.now() - now : undefined),
        (error: MooncakeError) => {
          // A getter that throws while it is cloned may throw anything.
          const refused = error.cause instanceof DOMException || !jobs.every(({ rest }) => isCloneable(rest));
          if (refused) this.#runRefused(sent);
          else for (const { call } of sent) call.fail(error);
        },
      )
      .catch((cause: Error) => {
        for (const { call } of sent) call.fail(errors.worker(`no answer to its batch: ${cause.message}`, cause));
      })
      .then(() => {
        this.#free.push(index);
        this.#dispatch();
      });
  }

  #receive(lane: Lane, sent: readonly Sent[], { results }: Reply, roundTrip?: number): void {
    let work = 0;
    for (let i = 0; i < sent.length; i++) {
      const { call, piece } = sent[i];
      const { ms, done, error } = results[i];
      work += ms;
      if (done) {
        const { costKind, units } = call.pieces[piece];
        this.#cost.observe(costKind, units, ms * 1e6);
        if (!call.settled)
          call.deliver(piece, { arrays: done.arrays.map((array) => lane.take(array)), rest: done.rest });
      } else {
        call.fail(unpackError(error as ErrorRecord));
      }
    }
    if (roundTrip !== undefined) this.#cost.observeRoundTrip((roundTrip - work) * 1e6);
  }

  /** Arguments that cannot be sent: whatever is wrong with them, the task names it, to its own caller. */
  #runRefused(sent: readonly Sent[]): void {
    for (const { call, piece } of sent) {
      if (call.settled) continue;
      try {
        call.deliver(piece, this.#options.runHere(call.pieces[piece]));
      } catch (error) {
        call.fail(unpackError(packError(error)));
      }
    }
  }

  /** Measures the round trip before the first call needs it. */
  async #ping(times: number): Promise<void> {
    for (let i = 0; i < times && this.#queue.size === 0 && !this.#closing; i++) {
      const start = performance.now();
      try {
        await this.#options.door.run({ jobs: [], lane: -1, top: 0 });
      } catch {
        return;
      }
      // The first one waits for the worker to load.
      if (i > 0) this.#cost.observeRoundTrip((performance.now() - start) * 1e6);
    }
  }

  async #drain(): Promise<number[]> {
    this.#announce();
    if (this.#active.size > 0) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    const idle = [...this.#free];
    await this.#options.door.close();
    return idle;
  }
}
