/**
 * The loads of one decode rank. A load asks each prefill rank that it reads from for the blocks (waiting for the prefill
 * where the decode came first), moves the bytes, and asks whether they were held until now. Whatever fails, fails the
 * whole load: its blocks are reported, the engine computes them itself, and the prefill is told that nobody wants them.
 * A load is reported only when nothing of it writes into its blocks any more.
 */
import { errors, MooncakeError } from '../core/errors.js';
import type { KvLayout } from '../core/layout.js';
import type { KvGroup } from '../core/layout-group.js';
import type { CallLimits, Transfer, Verify } from '../transfer/transfer.js';
import { type PrefillEngine, PrefillEngines, type SourceRank } from './decode-engines.js';
import type { HandoverSource, Load, RankInfo } from './handover.js';
import { isHole, leastBytes, move } from './handover-move.js';
import type { Slots } from './handover-slots.js';
import { readGrant, readPushed, send, type Wanted } from './handover-wire.js';

/**
 * How the blocks come: `pull`: the decode reads them; `push`: the prefill writes them when all are computed; `layers`: the
 * prefill writes each layer of finished blocks while it computes the next.
 */
export type HandoverMode = 'pull' | 'push' | 'layers';

export interface DecodeOptions {
  readonly mode: HandoverMode;
  readonly verify: Verify | undefined;
  /** From the start of a load to its end, the wait for the prefill included. */
  readonly loadTimeoutMs: number;
  readonly slots: Slots;
  readonly onLoadError: ((error: MooncakeError, load: LoadName) => void) | undefined;
}

export interface LoadName {
  readonly requestId: string;
  readonly transferId: string;
  /** The tensor-parallel rank that failed. */
  readonly rank: number;
}

/** This rank, as loading needs it. */
export interface LoadTarget {
  readonly info: RankInfo;
  readonly layout: KvLayout;
  roster(signal: AbortSignal): Promise<readonly RankInfo[]>;
}

export interface DecodeCounters {
  loadsStarted: number;
  loadsDone: number;
  loadsFailed: number;
  loadsCancelled: number;
  /** Blocks of all groups that the done loads filled. */
  blocksLoaded: number;
  bytesLoaded: number;
  bytesVerified: number;
  /** Of the bytes loaded, those that were here before the prefill had ended. */
  bytesLoadedEarly: number;
}

interface Running {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

type Limits = CallLimits & { signal: AbortSignal; timeoutMs: number };

const CANCELLED = errors.aborted('the request was aborted');
const DROPPED = errors.aborted('the blocks of the request were taken away');

/** How long a prefill may take to hear that its blocks are not wanted. */
const RELEASE_TIMEOUT_MS = 5000;
const CLOSE_TIMEOUT_MS = 200;

export class DecodeRank {
  readonly counters: DecodeCounters = {
    loadsStarted: 0,
    loadsDone: 0,
    loadsFailed: 0,
    loadsCancelled: 0,
    blocksLoaded: 0,
    bytesLoaded: 0,
    bytesVerified: 0,
    bytesLoadedEarly: 0,
  };
  /** Failed loads by error code. */
  readonly failures: Record<string, number> = {};
  readonly #self: LoadTarget;
  readonly #options: DecodeOptions;
  readonly #engines: PrefillEngines;
  readonly #running = new Map<string, Running>();
  readonly #background = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  #finished: string[] = [];
  #failed: number[] = [];

  constructor(self: LoadTarget, transfer: Transfer, options: DecodeOptions) {
    this.#self = self;
    this.#options = options;
    this.#engines = new PrefillEngines(transfer, self.info.rank, (signal) => self.roster(signal));
  }

  /** Loads under way. */
  get running(): number {
    return this.#running.size;
  }

  start(load: Load): void {
    const stop = new AbortController();
    this.counters.loadsStarted++;
    const ended = this.#run(load, stop).finally(() => this.#running.delete(load.request));
    this.#running.set(load.request, { stop, ended });
  }

  /** Ends a load whose request was aborted; it is reported as finished, without failed blocks. */
  cancel(request: string): void {
    this.#running.get(request)?.stop.abort(CANCELLED);
  }

  /** Ends loads whose blocks were taken away; resolves when nothing writes into them. They are not reported. */
  async drop(requests: readonly string[]): Promise<void> {
    const running = requests.flatMap((request) => this.#running.get(request) ?? []);
    for (const { stop } of running) stop.abort(DROPPED);
    await Promise.all(running.map(({ ended }) => ended));
  }

  /** Tells the prefill that this engine does not want the hand-over. */
  letGo(request: string, source: HandoverSource, why: string): void {
    this.#inBackground(async (limits) => {
      const engine = await this.#engines.get(source, limits);
      this.#release(engine, engine.keeps('all'), this.#wanted(request, source), why);
    });
  }

  /** Requests whose load has ended since the last call, and the blocks of those that failed. */
  report(): { finished: string[]; failed: number[] } {
    const [finished, failed] = [this.#finished, this.#failed];
    [this.#finished, this.#failed] = [[], []];
    return { finished, failed };
  }

  async close(): Promise<void> {
    for (const { stop } of this.#running.values()) stop.abort(DROPPED);
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
    // What was let go is still told, for a moment.
    const timer = setTimeout(() => this.#closing.abort(errors.closed('the decode rank')), CLOSE_TIMEOUT_MS);
    while (this.#background.size > 0) await Promise.all(this.#background);
    clearTimeout(timer);
  }

  async #run(load: Load, stop: AbortController): Promise<void> {
    const { loadTimeoutMs } = this.#options;
    const deadline = performance.now() + loadTimeoutMs;
    const late = errors.timeout(`loading transfer ${load.source.transfer}`, loadTimeoutMs);
    const timer = setTimeout(() => stop.abort(late), loadTimeoutMs).unref();
    const limits = () => ({ signal: stop.signal, timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())) });
    let engine: PrefillEngine | undefined;
    let sources: readonly SourceRank[] = [];
    try {
      engine = await this.#engines.get(load.source, limits());
      sources = await engine.sources(limits());
      const unread = engine.keeps('unread');
      this.#release(engine, unread, this.#wanted(load.request, load.source), 'no rank of the decode reads from it');
      await all(sources, (source) => this.#fetch(source, load, limits), stop);
      this.counters.loadsDone++;
      this.counters.blocksLoaded += blocksOf(this.#self.layout.groups, load).length;
      this.#finished.push(load.request);
    } catch (error) {
      await this.#fail(load, engine, sources, stop.signal.aborted ? stop.signal.reason : error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** What this rank reads from one prefill rank. */
  async #fetch({ info, peer, plans, readers }: SourceRank, load: Load, limits: () => Limits): Promise<void> {
    const { engine, rank, generation } = this.#self.info;
    const { mode, verify, slots } = this.#options;
    const { timeoutMs } = limits();
    const by = this.#wanted(load.request, load.source);
    const tokens = { from: load.from, to: load.to };
    const take = { by, prompt: load.prompt, reader: { engine, rank, generation }, readers, timeoutMs };
    if (mode !== 'pull') {
      const push = { ...take, tokens, blocks: load.blocks, verify: verify ?? null, early: mode === 'layers' };
      const least = leastBytes(plans, load.blocks, tokens);
      const pushed = readPushed(await send(peer, 'push', info, push, limits()), verify, least);
      this.#count(pushed.bytes, pushed.verifiedBytes);
      this.counters.bytesLoadedEarly += pushed.earlyBytes;
      return;
    }
    const grant = readGrant(await send(peer, 'take', info, take, limits()));
    const blocks = { source: grant.blocks, destination: load.blocks, tokens };
    const read = () => move(plans, blocks, (descriptors) => peer.read(descriptors, { ...limits(), verify }));
    const report = await slots.run(read, limits().signal);
    await send(peer, 'done', info, { transfer: by.transfer, lease: grant.lease, reader: rank }, limits());
    this.#count(report.bytes, report.verifiedBytes);
  }

  #wanted(request: string, { transfer }: HandoverSource): Wanted {
    return { transfer, engine: this.#self.info.engine, request };
  }

  #count(bytes: number, verified: number): void {
    this.counters.bytesLoaded += bytes;
    this.counters.bytesVerified += verified;
  }

  async #fail(
    load: Load,
    engine: PrefillEngine | undefined,
    sources: readonly SourceRank[],
    error: unknown,
  ): Promise<void> {
    const aborted = error === CANCELLED || error === DROPPED;
    const by = this.#wanted(load.request, load.source);
    const why = aborted ? 'its decode was aborted' : `its decode failed: ${error}`;
    if (this.#options.mode !== 'pull') await stopWriting(sources, by, why);
    if (engine === undefined) this.letGo(load.request, load.source, why);
    else this.#release(engine, engine.ranks, by, why);

    if (error === DROPPED) return;
    this.#finished.push(load.request);
    if (error === CANCELLED) {
      this.counters.loadsCancelled++;
      return;
    }
    const known = error instanceof MooncakeError ? error : errors.peer(load.source.address, String(error), error);
    if (engine !== undefined && isGone(known)) this.#engines.forget(engine);
    this.counters.loadsFailed++;
    this.failures[known.code] = (this.failures[known.code] ?? 0) + 1;
    this.#failed = this.#failed.concat(blocksOf(this.#self.layout.groups, load));
    const name = { requestId: load.request, transferId: by.transfer, rank: this.#self.info.rank };
    // What it throws is not the load's.
    queueMicrotask(() => this.#options.onLoadError?.(known, name));
  }

  /** Tells ranks of a prefill engine that they may free the blocks; who does not hear it frees them after a time-out. */
  #release(engine: PrefillEngine, ranks: readonly RankInfo[], by: Wanted, why: string): void {
    for (const info of ranks) {
      this.#inBackground(async (limits) => {
        await send(await engine.peer(info, limits), 'release', info, { by, why }, limits);
      });
    }
  }

  #inBackground(task: (limits: Limits) => Promise<void>): void {
    const { signal } = this.#closing;
    const told = task({ signal, timeoutMs: RELEASE_TIMEOUT_MS })
      .catch(() => {})
      .finally(() => this.#background.delete(told));
    this.#background.add(told);
  }
}

/** Runs all tasks; when one fails the others are stopped. Settles when all have ended. */
async function all<T>(items: readonly T[], task: (item: T) => Promise<void>, stop: AbortController): Promise<void> {
  const stopOthers = (error: unknown) => {
    stop.abort(error);
    throw error;
  };
  const results = await Promise.allSettled(items.map((item) => task(item).catch(stopOthers)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Resolves when none of the ranks writes into our memory for this hand-over any more. */
async function stopWriting(sources: readonly SourceRank[], by: Wanted, why: string): Promise<void> {
  await Promise.all(
    sources.map(async ({ info, peer }) => {
      try {
        await send(peer, 'release', info, { by, why }, { timeoutMs: RELEASE_TIMEOUT_MS });
      } catch {
        // It does not answer: what comes from a closed connection is dropped.
        await peer.close();
      }
    }),
  );
}

const isGone = ({ code, argument }: MooncakeError) =>
  code === 'ERR_PEER' || code === 'ERR_CLOSED' || (code === 'ERR_NOT_FOUND' && argument !== 'transfer');

/** The own blocks that the load fills. */
function blocksOf(groups: readonly KvGroup[], { blocks, from, to }: Load): number[] {
  return groups.flatMap((group, index) =>
    (blocks[index] ?? [])
      .slice(Math.floor(from / group.blockSize), Math.ceil(to / group.blockSize))
      .filter((id) => !isHole(group, id)),
  );
}
