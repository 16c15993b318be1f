/**
 * One engine behind the proxy: its state, what runs on it, and its lanes. A lane is what a request is sent to: an engine, or
 * one data-parallel rank of a prefill engine (each rank has a KV cache and an engine id of its own).
 */
import type { MooncakeError } from '../core/errors.js';
import { bootstrapUrl, type EngineAddress } from './address.js';
import type { EngineSettings } from './engine-settings.js';
import { Upstream } from './upstream.js';

export type Role = 'prefill' | 'decode';

/**
 * starting: not heard of yet; ready: gets requests; down: was ready and does not answer; refused: does not fit the others;
 * draining: was removed, and ends what it has.
 */
export type InstanceState = 'starting' | 'ready' | 'down' | 'refused' | 'draining';

export interface Lane {
  readonly instance: Instance;
  /** Of the whole proxy: `http://host:port` or `http://host:port#rank`. */
  readonly name: string;
  /** Data-parallel rank; undefined where the engine chooses. */
  readonly rank: number | undefined;
  /** By which a decode engine names it; undefined without a bootstrap server. */
  readonly engineId: string | undefined;
  /** Estimated prompt blocks of the requests that it works on. */
  load: number;
}

/** A request that waits for an engine or reads from it. */
export interface Flight {
  fail(error: MooncakeError): void;
}

export interface InstanceOptions {
  readonly role: Role;
  readonly address: EngineAddress;
  /** Port of its bootstrap server; undefined: none is asked. */
  readonly bootstrapPort?: number;
  /** Whether it may do without one: a port that nobody named is only tried. */
  readonly bootstrapOptional?: boolean;
}

export class Instance {
  readonly role: Role;
  readonly address: EngineAddress;
  readonly upstream: Upstream;
  readonly bootstrap: string | undefined;
  readonly bootstrapOptional: boolean;
  /** While on: what may be aborted when the engine is found dead. */
  readonly flights = new Set<Flight>();
  state: InstanceState = 'starting';
  /** Why it is not ready. */
  why = 'not asked yet';
  lanes: readonly Lane[] = [];
  /** What it says of its KV cache; undefined until asked. */
  settings: EngineSettings | undefined;
  /** When something last came from it, by performance.now(). */
  heardAt = 0;
  requests = 0;
  failures = 0;

  constructor({ role, address, bootstrapPort, bootstrapOptional = false }: InstanceOptions) {
    this.role = role;
    this.address = address;
    this.upstream = new Upstream(address);
    this.bootstrap = bootstrapPort === undefined ? undefined : bootstrapUrl(address, bootstrapPort);
    this.bootstrapOptional = bootstrapOptional;
  }

  get name(): string {
    return this.address.url;
  }

  get load(): number {
    return this.lanes.reduce((sum, lane) => sum + lane.load, 0);
  }

  /** Takes the engine ids of its ranks. Returns whether they are others than before: the engine was started again. */
  setEngines(ids: readonly string[]): boolean {
    const isSame =
      this.lanes.length === Math.max(1, ids.length) && this.lanes.every((lane, i) => lane.engineId === ids[i]);
    if (isSame) return false;
    const lane = (engineId: string | undefined, rank: number | undefined): Lane => ({
      instance: this,
      name: rank === undefined ? this.name : `${this.name}#${rank}`,
      rank,
      engineId,
      load: 0,
    });
    this.lanes = ids.length === 0 ? [lane(undefined, undefined)] : ids.map((id, rank) => lane(id, rank));
    return true;
  }

  /** Ends what waits for it. */
  failFlights(error: MooncakeError): void {
    for (const flight of [...this.flights]) flight.fail(error);
  }

  close(): void {
    this.upstream.close();
  }
}
