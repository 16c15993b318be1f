/** A worker half with the memory of its rank, as calls of the control socket reach it. */
import type { ConnectorStats, SavedBlocks, WorkerConnector } from '../connector/api.js';
import { integer } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { MAX_LAYERS } from '../core/layout-group.js';
import { type Fields, strings } from './arguments.js';
import { decodeMeta, encodeHandshake, type Handshake, type Run } from './envelope.js';
import type { EngineEvents } from './gpu-events.js';
import type { Memories } from './memories.js';
import { layoutOf } from './memories.js';
import { type Failure, Session } from './session.js';

export interface FinishedAnswer {
  readonly sending: readonly string[];
  readonly receiving: readonly string[];
  /** Blocks whose load failed. */
  readonly invalid: readonly number[];
  /** Of connectors that were asked to keep count. */
  readonly saved: readonly SavedBlocks[];
  readonly stats: ConnectorStats;
  readonly errors: readonly Failure[];
}

/** What the engine has to wait for, and to announce, in this step. */
export interface WorkAnswer {
  readonly loads: boolean;
  readonly saves: boolean;
}

export class WorkerSession extends Session {
  readonly rank: number;
  readonly #half: WorkerConnector;
  readonly #memories: Memories;
  #registered: Handshake | undefined;
  #bound = false;
  /** A step whose loads have not started yet: what was called behind it waits. */
  #starting: Promise<unknown> | undefined;
  /** By which the engine's GPU says what it has done; undefined where the engine says so itself. */
  #events: EngineEvents | undefined;
  /** Layers of the step that are to be saved when their events are over, one after the other. */
  #layers: Promise<void> | undefined;
  /** Why what the GPU has done is not known any more. */
  #lost: MooncakeError | undefined;
  readonly #ending = new AbortController();
  /** Requests of which something may still be read, as far as the engine was not told otherwise. */
  readonly #sending = new Set<string>();

  constructor(id: number, run: Run, pid: number, rank: number, half: WorkerConnector, memories: Memories) {
    super(id, run, pid);
    this.rank = rank;
    this.#half = half;
    this.#memories = memories;
  }

  /** What it said of itself; undefined until its memory is known. */
  get handshake(): Handshake | undefined {
    return this.#registered;
  }

  /** Bytes of the engine's memory that are mapped here. */
  get bytes(): number {
    return this.#memories.bytes;
  }

  /** Whether its memory was mapped and refused: what part of a half had registered it is not known, so the run must end. */
  get spoiled(): boolean {
    return this.#registered === undefined && this.#memories.bytes > 0;
  }

  register(args: Fields): Handshake {
    if (this.spoiled) throw errors.stale('the session', 'its memory was refused; attach again');
    if (this.#registered !== undefined) throw errors.invalidArgument('memories', args.memories, 'registered once');
    this.#events = this.#memories.events(args.events);
    const memories = this.#memories.open(args.memories, this.pid);
    try {
      this.#half.registerKvCaches({ memories, layout: (segments) => layoutOf(args.layout, memories, segments) });
    } finally {
      this.#memories.opened();
    }
    this.#registered = { run: this.run, rank: this.rank, data: this.#half.getHandshakeMetadata() };
    return this.#registered;
  }

  encoded(): Uint8Array {
    return encodeHandshake(this.#registered as Handshake);
  }

  /**
   * Answers when the blocks of preempted requests may be changed and the loads of the step have begun. Where the engine names an
   * event, they begin when it is over, and what is called behind this waits for them.
   */
  async step(args: Fields): Promise<WorkAnswer> {
    const begun = this.#starting === undefined ? this.#begin(args) : this.#starting.then(() => this.#begin(args));
    const settled = begun.then(({ loading }) => loading).catch(() => {});
    this.#starting = settled;
    try {
      const { work, loading } = await begun;
      if (loading === undefined) this.#started(settled);
      return work;
    } finally {
      void settled.then(() => this.#started(settled));
    }
  }

  #started(settled: Promise<unknown>): void {
    if (this.#starting === settled) this.#starting = undefined;
  }

  async #begin(args: Fields): Promise<{ work: WorkAnswer; loading?: Promise<void> }> {
    const preempted = strings('preempted', args.preempted);
    const after = this.#after(args);
    const given = args.meta ?? null;
    const meta = given === null ? null : decodeMeta(given, this.run, this.rank);
    this.#check();
    this.#clear();
    if (meta !== null) {
      this.#bound = true;
      this.#half.bindConnectorMetadata(meta);
    }
    if (preempted.length > 0) await this.#half.handlePreemptions(preempted);
    if (meta === null) return { work: { loads: false, saves: false } };
    const work = workOf(meta, this.#sending);
    if (after === undefined) {
      this.#half.startLoadKv();
      return { work };
    }
    const loading = this.#over(after).then(() => {
      if (this.#lost === undefined) this.#half.startLoadKv();
    });
    return { work, loading: loading.catch((cause) => this.#lose(cause)) };
  }

  layerLoad(args: Fields): Promise<void> {
    const layer = integer('layer', args.layer, 0, MAX_LAYERS - 1);
    return this.#behind(() => this.#half.waitForLayerLoad(layer));
  }

  layerSaved(args: Fields): null | Promise<null> {
    const layer = integer('layer', args.layer, 0, MAX_LAYERS - 1);
    const after = this.#after(args);
    const saved = () => {
      if (this.#lost === undefined) this.#half.saveKvLayer(layer);
      return null;
    };
    if (after === undefined && this.#layers === undefined) {
      return this.#starting === undefined ? saved() : this.#starting.then(saved);
    }
    const before = this.#layers ?? this.#starting ?? Promise.resolve();
    // One after the other, as the GPU gets to them: each that waits is asked after all the time.
    const turn = before.then(() => (after === undefined ? undefined : this.#over(after)));
    this.#layers = turn;
    return turn.then(saved);
  }

  saved(): Promise<void> {
    return this.#behind(async () => {
      await this.#layers;
      this.#layers = undefined;
      this.#check();
      await this.#half.waitForSave();
    });
  }

  finished(args: Fields): FinishedAnswer | Promise<FinishedAnswer> {
    const ended = strings('finished', args.finished);
    return this.#starting === undefined ? this.#finish(ended) : this.#starting.then(() => this.#finish(ended));
  }

  #finish(ended: readonly string[]): FinishedAnswer {
    this.#check();
    const { sending, receiving } = this.#half.getFinished(ended);
    const invalid = this.#half.getBlockIdsWithLoadErrors();
    this.#clear();
    for (const id of sending) this.#sending.delete(id);
    const saved = this.#half.takeSaved?.() ?? [];
    return { sending, receiving, invalid, saved, stats: this.#half.stats(), errors: this.takeFailures() };
  }

  /** Resolves when what was to be saved of ended requests has left, or has been given up as it took too long. */
  async drain(): Promise<void> {
    await this.#starting;
    if (this.#registered !== undefined && this.#sending.size > 0)
      await this.#half.handlePreemptions([...this.#sending]);
  }

  async savesEnded(): Promise<void> {
    await this.#starting;
    await this.#layers;
    await this.#half.savesEnded?.();
  }

  stats(): ConnectorStats {
    return this.#half.stats();
  }

  /** Resolves when nothing of it touches the engine's memory any more, which is let go then. */
  async shutdown(): Promise<void> {
    this.#ending.abort();
    await this.#starting;
    await this.#layers;
    await this.#half.shutdown();
    this.#memories.release();
    this.#events?.close();
    this.#events = undefined;
  }

  #behind<T>(call: () => Promise<T>): Promise<T> {
    const checked = () => {
      this.#check();
      return call();
    };
    return this.#starting === undefined ? checked() : this.#starting.then(checked);
  }

  /** The event that a call names. */
  #after({ after }: Fields): number | undefined {
    if (after === undefined || after === null) return undefined;
    if (this.#events === undefined)
      throw errors.invalidArgument('after', after, 'an event of those in worker.register');
    return integer('after', after, 0, this.#events.count - 1);
  }

  /** Resolves when the event is over, or when that will never be known. */
  async #over(event: number): Promise<void> {
    try {
      await this.#events?.over(event, this.#ending.signal);
    } catch (cause) {
      this.#lose(cause);
    }
  }

  #lose(cause: unknown): void {
    const why = cause instanceof MooncakeError ? cause.message : String(cause);
    this.#lost ??= errors.stale('the session', `what was to begin behind the engine's GPU did not (${why})`);
  }

  /** Throws ERR_STALE: nothing of the step may begin, for it could be read too early. */
  #check(): void {
    if (this.#lost !== undefined) throw this.#lost;
  }

  #clear(): void {
    if (!this.#bound) return;
    this.#bound = false;
    this.#half.clearConnectorMetadata();
  }
}

interface AnyStep {
  readonly parts?: readonly AnyStep[];
  /** A store's. */
  readonly saves?: readonly { readonly requestId: string }[];
  readonly loads?: readonly { readonly async?: boolean }[];
  /** A hand-over's: a prefill whose layers may be wanted early, and blocks that are computed again. */
  readonly steps?: readonly unknown[];
}

/** `reads`: gets the requests that are read for saves. */
function workOf(meta: unknown, reads: Set<string>): WorkAnswer {
  const { parts = [], saves = [], loads = [], steps = [] } = meta as AnyStep;
  for (const { requestId } of saves) reads.add(requestId);
  const work = {
    loads: steps.length > 0 || loads.some((load) => load.async === false),
    saves: saves.length + steps.length > 0,
  };
  for (const part of parts) {
    const own = workOf(part, reads);
    work.loads ||= own.loads;
    work.saves ||= own.saves;
  }
  return work;
}
