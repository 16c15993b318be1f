/**
 * Which client lends which segments, and for how long: pings, mounts and remounts, the fence of remounted segments, graceful
 * unmounts, and the end of clients that fell silent. `sweep` is to be called about once a second.
 */
import type { SegmentFigures, SegmentInfo, Status, Uuid } from '../api.js';
import type { MetadataService } from '../service.js';
import { STATUS } from '../status.js';
import { type CLIENT, Clients } from './clients.js';

export interface LendingOptions {
  clientTtlMs: number;
  /** How long a remounted segment that is not known is fenced: one lease of the master before this one. */
  fenceMs: number;
  now: () => number;
  /** Told what a person should know: a client that is gone, a fenced segment. */
  onEvent: (event: LendingEvent) => void;
}

export interface LendingEvent {
  what: 'client-lost' | 'segment-mounted' | 'segment-fenced' | 'segment-unmounted';
  client: Uuid;
  segment?: string;
  bytes?: number;
}

interface Fenced {
  readonly info: SegmentInfo;
  readonly client: Uuid;
  readonly until: number;
}

interface Leaving {
  readonly client: Uuid;
  readonly at: number;
}

/** Longest grace of an unmount: a day. */
const MAX_GRACE_MS = 24 * 60 * 60_000;

export class Lending {
  /** First address of each mounted segment. */
  readonly bases = new Map<Uuid, number>();
  readonly #service: MetadataService;
  readonly #options: LendingOptions;
  readonly #clients: Clients;
  readonly #fenced = new Map<Uuid, Fenced>();
  readonly #leaving = new Map<Uuid, Leaving>();

  constructor(service: MetadataService, options: LendingOptions) {
    this.#service = service;
    this.#options = options;
    this.#clients = new Clients(options.clientTtlMs, options.now);
  }

  get clients(): number {
    return this.#clients.count;
  }

  segments(): SegmentFigures[] {
    return this.#service.segments();
  }

  ping(client: Uuid): (typeof CLIENT)[keyof typeof CLIENT] {
    return this.#clients.seen(client);
  }

  /** -600 for what is no range of memory, -102 where another has the id or the range. */
  mount(info: SegmentInfo, client: Uuid): Status {
    this.#clients.lends(client);
    return this.#mount(info, client);
  }

  remount(infos: readonly SegmentInfo[], client: Uuid): Status {
    let status: Status = STATUS.ok;
    for (const info of infos) {
      if (this.bases.has(info.id)) {
        status ||= this.#mount(info, client);
      } else if (!this.#fenced.has(info.id)) {
        this.#fenced.set(info.id, { info, client, until: this.#options.now() + this.#options.fenceMs });
        this.#tell('segment-fenced', client, info);
      }
    }
    if (status === STATUS.ok) this.#clients.remounted(client);
    return status;
  }

  unmount(segment: Uuid, client: Uuid): Status {
    const fenced = this.#fenced.get(segment);
    if (fenced) {
      if (fenced.client !== client) return STATUS.notOwner;
      this.#fenced.delete(segment);
      return STATUS.ok;
    }
    const info = this.segments().find((one) => one.id === segment);
    const status = this.#service.unmountSegment(segment, client);
    if (status === STATUS.ok && info) {
      this.bases.delete(segment);
      this.#leaving.delete(segment);
      this.#tell('segment-unmounted', client, info);
    }
    return status;
  }

  /** The segment stays readable for so long, and goes then. */
  unmountLater(segment: Uuid, client: Uuid, graceMs: number): Status {
    if (graceMs === 0 || !this.bases.has(segment)) return this.unmount(segment, client);
    if (!(graceMs <= MAX_GRACE_MS)) return STATUS.invalidParams;
    const info = this.segments().find((one) => one.id === segment);
    if (info?.client !== client) return STATUS.notOwner;
    this.#leaving.set(segment, { client, at: this.#options.now() + graceMs });
    return STATUS.ok;
  }

  /** Does what has fallen due. */
  sweep(): void {
    const now = this.#options.now();
    for (const [id, { client, at }] of this.#leaving) if (at <= now) this.unmount(id, client);
    for (const client of this.#clients.expire()) {
      this.#tell('client-lost', client);
      for (const [id, fenced] of this.#fenced) if (fenced.client === client) this.#fenced.delete(id);
      for (const { id } of this.segments().filter((one) => one.client === client)) this.unmount(id, client);
    }
    for (const [id, { info, client, until }] of this.#fenced) {
      if (until > now) continue;
      this.#fenced.delete(id);
      this.#mount(info, client);
    }
    this.#service.tick();
  }

  #mount(info: SegmentInfo, client: Uuid): Status {
    const again = this.bases.has(info.id);
    const status = this.#service.mountSegment(info, client);
    if (status === STATUS.ok && !again) {
      this.bases.set(info.id, info.base);
      this.#fenced.delete(info.id);
      this.#tell('segment-mounted', client, info);
    }
    return status;
  }

  #tell(what: LendingEvent['what'], client: Uuid, info?: SegmentInfo): void {
    this.#options.onEvent({ what, client, segment: info?.name, bytes: info?.length });
  }
}
