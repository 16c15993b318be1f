/**
 * The engines behind the proxy, as they come and go: added, asked once a second whether they are there, taken out while they
 * are not, drained when removed. An engine that has been silent while it should have answered is dead to its requests too.
 */
import { errors, MooncakeError } from '../core/errors.js';
import { type EngineAddress, engineAddress } from './address.js';
import { difference, engineIds, engineSettings, isHealthy } from './engine-settings.js';
import { Instance, type InstanceOptions, type Lane, type Role } from './instance.js';
import { Upstream } from './upstream.js';

/** How KV comes from prefill to decode engines: handed over, through a store, both, or as each prefill engine can. */
export type Mode = 'auto' | 'bootstrap' | 'store' | 'multi';

export interface FleetOptions {
  readonly mode: Mode;
  readonly healthMs: number;
  /** An engine that takes longer to say that it is well is counted as silent. */
  readonly healthTimeoutMs: number;
  log(line: string): void;
  /** A lane that is no more, or has forgotten all that it had. */
  forgotten(lane: Lane): void;
}

/** Answers missed in a row until an engine counts as down; a refused connection counts at once. */
const MISSES = 2;

export class Fleet {
  readonly #options: FleetOptions;
  readonly #instances = new Set<Instance>();
  readonly #misses = new Map<Instance, number>();
  readonly #bootstraps = new Map<Instance, Upstream>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #asking = new Set<Instance>();

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  get instances(): readonly Instance[] {
    return [...this.#instances];
  }

  /** Where requests of a role can go now. */
  lanes(role: Role): Lane[] {
    const lanes: Lane[] = [];
    for (const instance of this.#instances) {
      if (instance.role === role && instance.state === 'ready') lanes.push(...instance.lanes);
    }
    return lanes;
  }

  /** Asks every engine now, and from now on regularly. */
  async start(): Promise<void> {
    this.#timer = setInterval(() => this.#askAll(), this.#options.healthMs).unref();
    await this.#askAll();
  }

  async #askAll(): Promise<void> {
    await Promise.all([...this.#instances].map((instance) => this.#ask(instance)));
  }

  find(role: Role, address: EngineAddress): Instance | undefined {
    return [...this.#instances].find((one) => one.role === role && one.name === address.url);
  }

  /** Adds an engine that need not be there yet. @throws ERR_INVALID_ARGUMENT for one that is here already */
  add(options: InstanceOptions): Instance {
    const { role, address } = options;
    if (this.find(role, address) !== undefined) {
      throw errors.invalidArgument('instance', address.url, `one that is not among the ${role} instances yet`);
    }
    const instance = new Instance(options);
    this.#instances.add(instance);
    if (instance.bootstrap !== undefined) {
      this.#bootstraps.set(instance, new Upstream(engineAddress('bootstrap', instance.bootstrap)));
    }
    return instance;
  }

  /** Adds an engine that must be there and fit the others; else nothing is changed. @throws ERR_PEER, ERR_NAMESPACE */
  async join(options: InstanceOptions): Promise<Instance> {
    const instance = this.add(options);
    await this.#ask(instance);
    if (instance.state === 'ready') return instance;
    this.#discard(instance);
    if (instance.state === 'refused') throw errors.namespace('instance', instance.name, instance.why);
    throw errors.peer(instance.name, instance.why);
  }

  /** Takes an engine out: no new requests, those it has end. */
  remove(role: Role, address: EngineAddress): Instance {
    const instance = this.find(role, address);
    if (instance === undefined) {
      throw errors.invalidArgument('instance', address.url, `one of the ${role} instances`);
    }
    this.#become(instance, 'draining', 'removed');
    this.drained(instance);
    return instance;
  }

  /** To be called when a request leaves an engine: the last one closes the door of one that drains. */
  drained(instance: Instance): void {
    if (instance.state === 'draining' && instance.flights.size === 0) this.#discard(instance);
  }

  /** A request failed at the engine: it is asked at once, and where it could not be reached gets no more until it answers. */
  suspect(instance: Instance, why: string, isUnreachable: boolean): void {
    if (instance.state !== 'ready') return;
    if (isUnreachable) this.#become(instance, 'down', why);
    this.#ask(instance);
  }

  #discard(instance: Instance): void {
    if (!this.#instances.delete(instance)) return;
    this.#misses.delete(instance);
    this.#bootstraps.get(instance)?.close();
    this.#bootstraps.delete(instance);
    for (const lane of instance.lanes) this.#options.forgotten(lane);
    instance.close();
    this.#options.log(`${instance.role} ${instance.name}: gone`);
  }

  async #ask(instance: Instance): Promise<void> {
    if (this.#asking.has(instance) || instance.state === 'draining') return;
    this.#asking.add(instance);
    const patience = AbortSignal.timeout(this.#options.healthTimeoutMs);
    const signal = AbortSignal.any([patience, this.#closing.signal]);
    try {
      await isHealthy(instance.upstream, signal);
      instance.heardAt = performance.now();
      const isNew = instance.setEngines(await this.#engineIds(instance, signal));
      if (isNew) for (const lane of instance.lanes) this.#options.forgotten(lane);
      if (isNew || instance.state !== 'ready') instance.settings = await engineSettings(instance.upstream, signal);
      this.#misses.delete(instance);
      const why = this.#misfit(instance);
      if (this.#gone(instance)) return;
      if (why === undefined) this.#become(instance, 'ready', '');
      else this.#become(instance, 'refused', why);
    } catch (error) {
      if (this.#closing.signal.aborted || this.#gone(instance)) return;
      const why = patience.aborted
        ? `no answer in ${this.#options.healthTimeoutMs} ms`
        : error instanceof MooncakeError
          ? error.message
          : String(error);
      this.#missed(instance, why, patience.aborted);
    } finally {
      this.#asking.delete(instance);
    }
  }

  #gone(instance: Instance): boolean {
    return !this.#instances.has(instance) || instance.state === 'draining';
  }

  #missed(instance: Instance, why: string, isSilent: boolean): void {
    const misses = (this.#misses.get(instance) ?? 0) + 1;
    this.#misses.set(instance, misses);
    if (instance.state !== 'ready' && instance.state !== 'down') instance.why = why;
    else if (misses >= MISSES || !isSilent) this.#become(instance, 'down', why);
    const silence = performance.now() - instance.heardAt;
    if (misses >= MISSES && silence >= this.#options.healthTimeoutMs && instance.flights.size > 0) {
      instance.failFlights(errors.peer(instance.name, `silent for ${Math.round(silence)} ms: ${why}`));
    }
  }

  /** Engine ids by rank; none where KV is not handed over. */
  async #engineIds(instance: Instance, signal: AbortSignal): Promise<string[]> {
    const bootstrap = this.#bootstraps.get(instance);
    if (bootstrap === undefined) return [];
    try {
      return await engineIds(bootstrap, signal);
    } catch (error) {
      // Once it has had one, it has one.
      const isFirst = instance.lanes.every(({ engineId }) => engineId === undefined);
      if (instance.bootstrapOptional && isFirst && !signal.aborted) return [];
      throw error;
    }
  }

  /** Why an engine must not serve beside those that are ready. */
  #misfit(instance: Instance): string | undefined {
    for (const other of this.#instances) {
      if (other === instance || other.state !== 'ready') continue;
      const ids = other.lanes.map(({ engineId }) => engineId).filter((id) => id !== undefined);
      if (instance.lanes.some(({ engineId }) => engineId !== undefined && ids.includes(engineId))) {
        return `its bootstrap server ${instance.bootstrap} is that of ${other.name}: give each its own bootstrap port`;
      }
      const sharesKeys = this.#options.mode === 'store' || this.#options.mode === 'multi';
      const differs = sharesKeys ? difference(instance.settings ?? {}, other.settings ?? {}) : undefined;
      if (differs !== undefined) return `${differs}, as ${other.name} has: they would not find each other's blocks`;
    }
    return undefined;
  }

  #become(instance: Instance, state: Instance['state'], why: string): void {
    instance.why = why;
    if (instance.state === state) return;
    const before = instance.state;
    instance.state = state;
    this.#options.log(`${instance.role} ${instance.name}: ${before} -> ${state}${why === '' ? '' : ` (${why})`}`);
    // What a dead engine had in its cache is lost with it; one that was only slow is learnt again.
    if (state === 'down') for (const lane of instance.lanes) this.#options.forgotten(lane);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#closing.abort(errors.closed('the proxy'));
    for (const instance of [...this.#instances]) this.#discard(instance);
  }
}
