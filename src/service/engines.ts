/**
 * The engines at a service. An engine is whole or it is not there: its halves know what the others were told, so when one of
 * them goes, all of them end, and they attach anew as another run (`generation`). An id that was just let go is taken again
 * when nothing of its last run touches memory any more: who gets an answer may reuse its blocks.
 */
import type { KvConnector } from '../connector/api.js';
import type { MooncakeStoreConnector } from '../connector/store.js';
import { errors, type MooncakeError, show } from '../core/errors.js';
import { type BootstrapServers, bootstrapPort } from './bootstrap-server.js';
import { type ConnectorListener, makeConnector, type Resources } from './connectors.js';
import type { Handshake, Run } from './envelope.js';
import { Memories, type MemorySource } from './memories.js';
import { SchedulerSession } from './scheduler-session.js';
import { type AttachSpec, checkSame } from './spec.js';
import { WorkerSession } from './worker-session.js';

/** How long an attach waits for the last run of its engine to end. */
const END_MS = 30_000;

/** Told what happens to engines, for a log. */
export interface EngineEvent {
  readonly what: 'attached' | 'linked' | 'ended' | 'refused' | 'failed';
  readonly engine: string;
  readonly text: string;
}

export interface EnginesOptions extends Resources {
  readonly instance: string;
  readonly memory: MemorySource | undefined;
  readonly bootstrap: BootstrapServers;
  readonly onEvent: (event: EngineEvent) => void;
}

export class Engine {
  readonly run: Run;
  readonly spec: AttachSpec;
  readonly generation: number;
  readonly connector: KvConnector;
  /** Those of its connectors that share prefixes. */
  readonly stores: MooncakeStoreConnector[] = [];
  scheduler: SchedulerSession | undefined;
  readonly workers = new Map<number, WorkerSession>();
  /** Why it has ended; its sessions are of no use then. */
  ended: MooncakeError | undefined;
  /** Its scheduler half knows all of its ranks. */
  linked = false;
  /** Ends being found by routers. */
  leave: (() => void) | undefined;

  constructor(spec: AttachSpec, run: Run, generation: number, connector: (listener: ConnectorListener) => KvConnector) {
    this.spec = spec;
    this.run = run;
    this.generation = generation;
    this.connector = connector({
      onError: (error) => this.report(error),
      onStore: (one) => this.stores.push(one),
    });
  }

  get id(): string {
    return this.spec.engine.engineId;
  }

  get sessions(): readonly (SchedulerSession | WorkerSession)[] {
    return [...(this.scheduler ? [this.scheduler] : []), ...this.workers.values()];
  }

  /**
   * Removes what engines of this model have saved, when nothing of this engine's is being saved any more; how many objects.
   * Throws ERR_NOT_SUPPORTED without a store.
   */
  async reset(): Promise<number> {
    if (this.stores.length === 0) throw errors.notSupported('reset', 'the engine shares no prefixes');
    await Promise.all([...this.workers.values()].map((worker) => worker.savesEnded()));
    const removed = await Promise.all(this.stores.map((store) => store.forget(this.spec.engine)));
    return removed.reduce((sum, count) => sum + count, 0);
  }

  /** Tells the scheduler half's engine, or where there is none those of the workers. */
  report(error: unknown): void {
    for (const session of this.scheduler ? [this.scheduler] : this.workers.values()) session.report(error);
  }
}

export class Engines {
  readonly #options: EnginesOptions;
  readonly #engines = new Map<string, Engine>();
  /** Runs that have ended and may still touch memory, by engine. */
  readonly #ending = new Map<string, Promise<void>>();
  #generation = 0;
  #sessions = 0;
  #closed = false;

  constructor(options: EnginesOptions) {
    this.#options = options;
  }

  get all(): readonly Engine[] {
    return [...this.#engines.values()];
  }

  /** `alive`: whether the connection that asks is still there. Throws ERR_ENGINE, or what the connector refuses. */
  async attachScheduler(spec: AttachSpec, pid: number, alive: () => boolean): Promise<[Engine, SchedulerSession]> {
    const engine = await this.#engine(
      spec,
      alive,
      ({ scheduler }) => scheduler && `a scheduler half (process ${scheduler.pid})`,
    );
    const half = this.#made(engine, () => engine.connector.createScheduler(spec.engine));
    const session = new SchedulerSession(++this.#sessions, engine.run, pid, half);
    engine.scheduler = session;
    this.#say('attached', engine, `scheduler half of process ${pid}, generation ${engine.generation}`);
    this.link(engine);
    return [engine, session];
  }

  async attachWorker(
    spec: AttachSpec,
    rank: number,
    pid: number,
    alive: () => boolean,
  ): Promise<[Engine, WorkerSession]> {
    const size = spec.engine.tensorParallelSize ?? 1;
    if (rank >= size) throw errors.invalidArgument('rank', rank, `below tensorParallelSize ${size}`);
    const engine = await this.#engine(spec, alive, ({ workers }) => {
      const other = workers.get(rank);
      return other && `rank ${rank} (process ${other.pid})`;
    });
    const half = this.#made(engine, () => engine.connector.createWorker(spec.engine, rank));
    const session = new WorkerSession(
      ++this.#sessions,
      engine.run,
      pid,
      rank,
      half,
      new Memories(this.#options.memory),
    );
    engine.workers.set(rank, session);
    this.#say('attached', engine, `rank ${rank} of process ${pid}, generation ${engine.generation}`);
    return [engine, session];
  }

  /** Tells the scheduler half of the ranks, when all of them are here. What does not fit is told to both sides. */
  link(engine: Engine): void {
    const size = engine.spec.engine.tensorParallelSize ?? 1;
    const handshakes = Array.from({ length: size }, (_, rank) => engine.workers.get(rank)?.handshake);
    if (engine.scheduler === undefined || handshakes.some((one) => one === undefined)) return;
    try {
      engine.scheduler.link(handshakes as Handshake[]);
      engine.linked = true;
      this.#say('linked', engine, `${size} rank(s)`);
      for (const store of engine.stores) void this.#examine(engine, store);
    } catch (error) {
      for (const session of engine.sessions) session.report(error);
      this.#say('failed', engine, `its halves do not fit: ${(error as Error).message}`);
    }
  }

  /** An engine whose namespace is refused works on, and finds nothing: somebody has to say why. */
  async #examine(engine: Engine, store: MooncakeStoreConnector): Promise<void> {
    try {
      await store.attached();
    } catch (error) {
      engine.report(error);
      this.#say('refused', engine, (error as Error).message);
    }
  }

  /** Ends a run. Resolves when nothing of it touches the engine's memory. */
  end(engine: Engine, why: string): Promise<void> {
    if (engine.ended !== undefined) return this.#ending.get(engine.id) ?? Promise.resolve();
    engine.ended = errors.stale(`the session of engine ${show(engine.id)}`, `${why}; attach again`);
    if (this.#engines.get(engine.id) === engine) this.#engines.delete(engine.id);
    engine.leave?.();
    this.#say('ended', engine, why);
    const before = this.#ending.get(engine.id);
    const ended = Promise.allSettled([before, ...engine.sessions.map((session) => session.shutdown())]).then(
      (results) => {
        for (const result of results) {
          if (result.status === 'rejected') this.#say('failed', engine, `while it ended: ${result.reason}`);
        }
        if (this.#ending.get(engine.id) === ended) this.#ending.delete(engine.id);
      },
    );
    this.#ending.set(engine.id, ended);
    return ended;
  }

  /** Lets saves of requests that have ended leave, for a moment, then ends the run. */
  async detach(engine: Engine): Promise<void> {
    await Promise.allSettled([...engine.workers.values()].map((worker) => worker.drain()));
    await this.end(engine, 'the engine has detached');
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.all.map((engine) => this.end(engine, 'the service stops')));
    await Promise.all(this.#ending.values());
  }

  /** The run that a half joins: the one that is there, or a new one. `taken` names a half that has its place. */
  async #engine(
    spec: AttachSpec,
    alive: () => boolean,
    taken: (engine: Engine) => string | undefined,
  ): Promise<Engine> {
    const id = spec.engine.engineId;
    const end = performance.now() + END_MS;
    for (let looked = false; ; ) {
      if (this.#closed) throw errors.closed('the service');
      const ending = this.#ending.get(id);
      if (ending !== undefined) {
        await within(ending, end - performance.now(), `the last run of engine ${show(id)}`);
        continue;
      }
      const engine = this.#engines.get(id);
      const other = engine && taken(engine);
      // The end of a connection may be read after the first call of the one that follows it.
      if (other !== undefined && !looked) {
        looked = true;
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      if (!alive()) throw errors.closed('the connection');
      if (engine === undefined) return this.#begin(spec);
      if (other !== undefined) {
        const why = `engine ${show(id)} has ${other} that lives: engine ids are unique`;
        this.#say('refused', engine, why);
        throw errors.engine('engine.engineId', id, why);
      }
      checkSame(engine.spec, spec);
      return engine;
    }
  }

  #begin(spec: AttachSpec): Engine {
    const port = spec.engine.role === 'consumer' ? undefined : bootstrapPort(spec.connector);
    const generation = ++this.#generation;
    const run = `${this.#options.instance}:${generation}`;
    const engine = new Engine(spec, run, generation, (listener) =>
      makeConnector(spec.connector, this.#options, listener),
    );
    this.#engines.set(engine.id, engine);
    if (port !== undefined) this.#announce(engine, port);
    return engine;
  }

  /** Lets routers ask for it. */
  #announce(engine: Engine, port: number): void {
    const { spec, id } = engine;
    const ranks = spec.engine.tensorParallelSize ?? 1;
    const served = this.#options.bootstrap.add(port, { engineId: id, ranks, ready: () => engine.linked });
    engine.leave = served.remove;
    served.listening.catch((error) => {
      engine.report(error);
      this.#say('failed', engine, `routers cannot ask for it: ${error.message}`);
    });
  }

  /** A half; an engine of which none could be made is not there. */
  #made<T>(engine: Engine, make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (engine.sessions.length === 0) {
        engine.leave?.();
        this.#engines.delete(engine.id);
      }
      throw error;
    }
  }

  #say(what: EngineEvent['what'], engine: Engine, text: string): void {
    this.#options.onEvent({ what, engine: engine.id, text });
  }
}

async function within(promise: Promise<unknown>, ms: number, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(errors.timeout(what, END_MS)), Math.max(0, ms));
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
