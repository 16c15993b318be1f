/**
 * The hand-overs of one prefill rank: from the offer of its scheduler until every rank of the decode that reads from it is
 * done, the decode lets go or dies, or the time-out passes. The engine keeps the blocks until then.
 *
 *     (take waits) ──offer──► offered ──take──► taken ──done by every reader──► ended
 *                                └── release, reader gone, time-out, close ────────┘
 *
 * A decode may come first: its `take` waits for the offer, as long as the decode says. What ended is remembered for a
 * while, so that who comes late hears at once that there is nothing to wait for.
 */
import { errors } from '../core/errors.js';
import type { Peer } from '../transfer/transfer.js';
import { type Offer, type PromptName, unknown, type Withdrawal } from './handover.js';
import { Departures } from './handover-departures.js';
import type { Done, Release, Take, Wanted } from './handover-wire.js';
import { isSame, Waiting } from './prefill-waiting.js';

/** One hand-over that this rank keeps blocks for. */
export interface Handover {
  readonly offer: Offer;
  /** Names it among all of this rank. */
  readonly lease: number;
  /** The decode's ranks that read from here; undefined until the first one came. */
  readers: Readers | undefined;
  /** Writes into readers' memory that are under way: the blocks are kept until they have ended. */
  readonly writes: Set<Promise<unknown>>;
  /** Stops them. */
  readonly stop: AbortController;
  readonly timer: NodeJS.Timeout;
}

interface Readers {
  readonly by: Wanted;
  readonly ranks: readonly number[];
  /** Those that are not done; once they came, with how to stop watching their connection. */
  readonly left: Map<number, (() => void) | undefined>;
}

interface Ended {
  readonly why: string;
  /** It ended before it was offered: an offer that comes after all is let go at once. */
  readonly early: boolean;
}

const MAX_REMEMBERED = 1 << 14;

export interface PrefillCounters {
  handoversOffered: number;
  handoversDone: number;
  /** Not taken, or not finished, within the time-out. */
  handoversExpired: number;
  /** Given up by the decode: aborted, or nothing of it was needed. */
  handoversReleased: number;
  /** A rank of the decode died before it was done. */
  handoversOrphaned: number;
}

export class PrefillRank {
  readonly counters: PrefillCounters = {
    handoversOffered: 0,
    handoversDone: 0,
    handoversExpired: 0,
    handoversReleased: 0,
    handoversOrphaned: 0,
  };
  readonly #timeoutMs: number;
  readonly #held = new Map<string, Handover>();
  readonly #waiting = new Waiting<Handover>();
  readonly #ended = new Map<string, Ended>();
  /** Hand-overs that end when their writes have: by what tells so, their transfers. */
  readonly #ending = new Map<Promise<void>, string>();
  readonly #departures = new Departures();
  #finished: string[] = [];
  #leases = 0;
  #closed = false;

  /** `timeoutMs`: how long an offer is kept for a decode that does not come, or does not finish. */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** Hand-overs whose blocks are kept. */
  get held(): number {
    return this.#held.size + this.#ending.size;
  }

  /** Ranks of decodes that wait for a prefill. */
  get waiting(): number {
    return this.#waiting.count;
  }

  /** The request's blocks are computed; they are kept until `finished` names it. `writes` of them are under way already. */
  offer(offer: Offer, writes: readonly Promise<void>[] = []): void {
    const { transfer, request } = offer;
    this.counters.handoversOffered++;
    const ended = this.#ended.get(transfer);
    this.#ended.delete(transfer);
    if (ended?.early || this.#closed) {
      this.#remember(transfer, { why: ended?.why ?? 'the engine shut down', early: false });
      this.counters.handoversReleased++;
      void this.#free(request, transfer, writes);
      return;
    }
    const handover: Handover = {
      offer,
      lease: ++this.#leases,
      readers: undefined,
      writes: new Set(writes),
      stop: new AbortController(),
      timer: setTimeout(() => {
        this.#end(handover, 'handoversExpired', `was not fetched within ${this.#timeoutMs} ms`);
      }, this.#timeoutMs).unref(),
    };
    this.#held.set(transfer, handover);
    this.#waiting.resolve(transfer, handover);
  }

  /** The prefill was aborted: who waits for it hears so. Blocks that are held are free when the `writes` of them have ended. */
  withdraw({ transfer, held }: Withdrawal, writes: readonly Promise<void>[]): void {
    this.#waiting.fail(transfer, 'its prefill was aborted');
    this.#remember(transfer, { why: 'its prefill was aborted', early: false });
    if (held !== undefined) void this.#free(held, transfer, writes);
  }

  /** Waits until the hand-over is offered, checks that it is the reader's, and notes who reads. */
  async take(take: Take, peer: Peer, signal: AbortSignal): Promise<Handover> {
    const { by, prompt, reader, readers } = take;
    const { transfer } = by;
    const handover = this.#held.get(transfer) ?? (await this.#offered(take, signal));
    checkPrompt(handover.offer.prompt, prompt);
    handover.readers ??= { by, ranks: readers, left: new Map(readers.map((rank) => [rank, undefined])) };
    const { ranks, left } = handover.readers;
    if (!isSame(by, handover.readers.by)) {
      const { engine, request } = handover.readers.by;
      throw unknown('transfer', transfer, `is taken by request ${request} of engine ${engine}`);
    }
    const same = ranks.length === readers.length && ranks.every((rank, index) => rank === readers[index]);
    if (!same) throw unknown('transfer', transfer, `is read by ranks ${ranks.join(', ')}, as another rank said`);
    if (!left.has(reader.rank)) throw unknown('transfer', transfer, `rank ${reader.rank} has read it already`);
    left.get(reader.rank)?.();
    const orphaned = () => this.#end(handover, 'handoversOrphaned', `its reader at ${peer.address} is gone`);
    left.set(reader.rank, this.#departures.when(peer, orphaned));
    return handover;
  }

  /** The reader has what it read: true from before its take until now. Throws ERR_NOT_FOUND where that is not so. */
  done({ transfer, lease, rank }: Done): void {
    const handover = this.#held.get(transfer);
    if (handover?.lease !== lease) {
      throw unknown('transfer', transfer, this.#ended.get(transfer)?.why ?? 'is not held under this lease');
    }
    const left = handover.readers?.left;
    left?.get(rank)?.();
    if (!left?.delete(rank)) throw unknown('transfer', transfer, `is not being read by rank ${rank}`);
    if (left.size === 0) this.#end(handover, 'handoversDone', 'has been read');
  }

  /**
   * No rank of the decode wants it (any more). Resolves when nothing is written into the decode's memory any more. What
   * another request has taken, or waits for, under the same transfer id stays its own.
   */
  async release({ by, why }: Release): Promise<void> {
    const { transfer } = by;
    const handover = this.#held.get(transfer);
    if (handover !== undefined) {
      if (isSame(by, handover.readers?.by ?? by)) await this.#end(handover, 'handoversReleased', why);
      return;
    }
    this.#waiting.fail(transfer, why, by);
    this.#endEarly(transfer, why);
    await Promise.all([...this.#ending].flatMap(([ending, of]) => (of === transfer ? ending : [])));
  }

  /** Requests whose blocks need not be kept any longer, since the last call. */
  finished(): string[] {
    const finished = this.#finished;
    this.#finished = [];
    return finished;
  }

  /** Ends everything. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#waiting.failAll('the prefill engine shut down');
    for (const handover of [...this.#held.values()]) {
      this.#end(handover, 'handoversReleased', 'the prefill engine shut down');
    }
    await Promise.all(this.#ending.keys());
  }

  async #offered({ by, timeoutMs }: Take, signal: AbortSignal): Promise<Handover> {
    const { transfer } = by;
    const ended = this.#ended.get(transfer);
    if (ended !== undefined) throw unknown('transfer', transfer, ended.why);
    if (this.#closed) throw errors.closed('the prefill engine');
    try {
      return await this.#waiting.wait(by, timeoutMs, signal);
    } catch (error) {
      // Who was aborted, lost patience or died does not come back.
      this.#endEarly(transfer, 'the decode that waited for it gave up');
      throw error;
    }
  }

  /** The decode does not want it, and nobody else waits: it is let go when it is offered. */
  #endEarly(transfer: string, why: string): void {
    if (!this.#ended.has(transfer) && !this.#waiting.has(transfer)) this.#remember(transfer, { why, early: true });
  }

  /** Ends a hand-over once; its blocks are free when no write of it is under way. */
  #end(handover: Handover, counter: keyof PrefillCounters, why: string): Promise<void> {
    const { transfer, request } = handover.offer;
    if (this.#held.get(transfer) !== handover) return Promise.resolve();
    this.#held.delete(transfer);
    clearTimeout(handover.timer);
    for (const unwatch of handover.readers?.left.values() ?? []) unwatch?.();
    this.#remember(transfer, { why, early: false });
    this.counters[counter]++;
    handover.stop.abort(unknown('transfer', transfer, why));
    return this.#free(request, transfer, handover.writes);
  }

  /** The blocks of a request are free when nothing of them is being written any more. */
  #free(request: string, transfer: string, writes: Iterable<Promise<unknown>>): Promise<void> {
    const ending = Promise.allSettled(writes).then(() => {
      this.#ending.delete(ending);
      this.#finished.push(request);
    });
    this.#ending.set(ending, transfer);
    return ending;
  }

  #remember(transfer: string, ended: Ended): void {
    this.#ended.delete(transfer);
    this.#ended.set(transfer, ended);
    if (this.#ended.size <= MAX_REMEMBERED) return;
    const [oldest] = this.#ended.keys();
    this.#ended.delete(oldest);
  }
}

function checkPrompt(ours: PromptName, theirs: PromptName): void {
  if (theirs.tokens !== ours.tokens) {
    throw errors.layoutMismatch('numPromptTokens', theirs.tokens, `the prefill computed ${ours.tokens} tokens`);
  }
  if (theirs.digest !== ours.digest) {
    throw errors.layoutMismatch('prompt', theirs.digest, 'the prefill computed other tokens under this transfer id');
  }
}
