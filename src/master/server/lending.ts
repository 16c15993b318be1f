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
  /** Whether clients may lend disks. */
  offload: boolean;
  /** How long a remounted segment that is not known is fenced: one lease of the master before this one. */
  fenceMs: number;
  now: () => number;
  /** A client is gone, and what it lent with it. */
  onLost: (client: Uuid) => void;
  /** Told what a person should know: a client that is gone, a fenced segment. */
  onEvent: (event: LendingEvent) => void;
}

export interface LendingEvent {
  what:
    | 'client-lost'
    | 'disk-mounted'
    | 'segment-mounted'
    | 'segment-fenced'
    | 'segment-restored'
    | 'segment-refused'
    | 'segment-replaced'
    | 'segment-leaving'
    | 'segment-unmounted';
  client: Uuid;
  segment?: string;
  bytes?: number;
  /** Why it was refused, as Mooncake numbers it. */
  status?: Status;
}

interface Fenced {
  readonly info: SegmentInfo;
  readonly client: Uuid;
  readonly until: number;
}

/** How many unmounts, one after another, a mount waits for. */
const UNMOUNTS = 8;
/** Longest grace of an unmount: a day. */
const MAX_GRACE_MS = 24 * 60 * 60_000;
/** Clients find a master that was restarted within so long beyond their time to live. */
const RESTART_GRACE_MS = 10_000;
/** Between two sweeps so long, this process itself stood still, and could not have heard anybody. */
const STOOD_STILL_MS = 3000;

export class Lending {
  /** First address of each mounted segment. */
  readonly bases = new Map<Uuid, number>();
  readonly #service: MetadataService;
  readonly #options: LendingOptions;
  readonly #clients: Clients;
  readonly #fenced = new Map<Uuid, Fenced>();
  /** When segments that leave go. */
  readonly #leaving = new Map<Uuid, number>();
  #sweptAt: number;

  constructor(service: MetadataService, options: LendingOptions) {
    this.#service = service;
    this.#options = options;
    this.#clients = new Clients(options.clientTtlMs, options.now);
    this.#sweptAt = options.now();
    for (const { id, base, client } of service.segments()) {
      this.bases.set(id, base);
      this.#clients.expects(client, RESTART_GRACE_MS);
    }
  }

  get clients(): number {
    return this.#clients.count;
  }

  /** Those that have remounted. */
  get activeClients(): number {
    return this.#clients.active;
  }

  segments(): SegmentFigures[] {
    return this.#service.segments();
  }

  ping(client: Uuid): (typeof CLIENT)[keyof typeof CLIENT] {
    return this.#clients.seen(client);
  }

  /**
   * -600 for what is no range of memory, -102 where another has the id or the client the range, -1010 while it leaves. Where
   * the memory was part of a segment that is still being unmounted, it waits for the end of that.
   */
  async mount(info: SegmentInfo, client: Uuid): Promise<Status> {
    this.#clients.lends(client);
    for (let patience = UNMOUNTS; ; patience--) {
      // To be mounted when its fence falls.
      if (this.#fenced.get(info.id)?.client === client) return STATUS.ok;
      const isKnown = this.bases.has(info.id);
      const status = this.#mount(info, client);
      if (status !== STATUS.unavailable || isKnown || patience === 0) return status;
      await this.#service.unmounted();
    }
  }

  /**
   * What is not known here is fenced. Always ok, as with stock: a client that was refused could do nothing but ask again,
   * every second.
   */
  remount(infos: readonly SegmentInfo[], client: Uuid): Status {
    this.#dropUnnamed(infos, client);
    for (const info of infos) {
      if (this.bases.has(info.id)) this.#mount(info, client);
      else if (!this.#fenced.has(info.id)) {
        this.#fenced.set(info.id, { info, client, until: this.#options.now() + this.#options.fenceMs });
        this.#tell('segment-fenced', client, info);
      }
    }
    this.#clients.remounted(client);
    return STATUS.ok;
  }

  get takesDisks(): boolean {
    return this.#options.offload;
  }

  /** A client lends its disk, and is watched from now on. -1300: this master has no use for it. */
  mountDisk(client: Uuid, accepts: boolean): Status {
    const status = this.#service.disks.mount(client, accepts);
    if (status === STATUS.ok) {
      this.#clients.lends(client);
      this.#tell('disk-mounted', client);
    }
    return status;
  }

  /** Ok also where nothing is known of it; -601 for another client's. */
  unmount(segment: Uuid, client: Uuid): Status {
    const fenced = this.#fenced.get(segment);
    if (fenced) {
      if (fenced.client !== client) return STATUS.notOwner;
      this.#fenced.delete(segment);
      return STATUS.ok;
    }
    const info = this.#find(segment);
    const status = this.#service.unmountSegment(segment, client);
    if (status === STATUS.ok && info) {
      this.bases.delete(segment);
      this.#leaving.delete(segment);
      this.#tell('segment-unmounted', client, info);
    }
    return status;
  }

  /** The segment stays readable for so long, while nothing is placed in it, and goes then. -600: it is not the client's. */
  unmountLater(segment: Uuid, client: Uuid, graceMs: number): Status {
    if (this.#fenced.get(segment)?.client === client) return this.unmount(segment, client);
    const info = this.#find(segment);
    if (info?.client !== client || !(graceMs <= MAX_GRACE_MS)) return STATUS.invalidParams;
    if (graceMs === 0 && info.drain === 'none') return this.unmount(segment, client);
    if (this.#leaving.has(segment)) return STATUS.ok;
    const status = this.#service.leaveSegment(segment, client);
    if (status !== STATUS.ok) return status;
    this.#leaving.set(segment, this.#options.now() + graceMs);
    this.#tell('segment-leaving', client, info);
    return STATUS.ok;
  }

  /** Does what has fallen due. */
  sweep(): void {
    const now = this.#options.now();
    const pause = now - this.#sweptAt;
    this.#sweptAt = now;
    if (pause > STOOD_STILL_MS) this.#clients.forgive(pause);
    for (const [id, at] of this.#leaving) if (at <= now) this.unmount(id, this.#find(id)!.client);
    const lost = new Set(this.#clients.expire());
    for (const client of lost) this.#tell('client-lost', client);
    if (lost.size > 0) {
      for (const [id, { client }] of this.#fenced) if (lost.has(client)) this.#fenced.delete(id);
      for (const { id, client } of this.segments()) if (lost.has(client)) this.unmount(id, client);
      for (const client of lost) this.#service.disks.unmount(client);
      for (const client of lost) this.#options.onLost(client);
    }
    for (const [id, { info, client, until }] of this.#fenced) {
      if (until > now) continue;
      // One whose memory is still being unmounted waits on.
      if (this.#mount(info, client) !== STATUS.unavailable) this.#fenced.delete(id);
    }
    this.#service.tick();
  }

  /** A client names all that it lends: what is absent of it and not named, or not as it was, does not come back. */
  #dropUnnamed(infos: readonly SegmentInfo[], client: Uuid): void {
    for (const known of this.segments()) {
      if (!known.isAbsent) continue;
      const named = infos.find(({ id }) => id === known.id);
      const same = known.client === client && named !== undefined && isSame(known, named);
      if (!same && (named !== undefined || known.client === client)) this.unmount(known.id, known.client);
    }
  }

  #find(segment: Uuid): SegmentFigures | undefined {
    return this.bases.has(segment) ? this.segments().find((one) => one.id === segment) : undefined;
  }

  #mount(info: SegmentInfo, client: Uuid): Status {
    const before = this.segments();
    const known = before.find(({ id }) => id === info.id);
    const again = known !== undefined && !known.isAbsent;
    // Memory does not begin at 0, whatever a service in the same process may count from.
    let status = info.base === 0 ? STATUS.invalidParams : this.#service.mountSegment(info, client);
    if (status === STATUS.segmentExists && this.#takeOver(info, client)) {
      status = this.#service.mountSegment(info, client);
    }
    if (before.some(({ isAbsent }) => isAbsent)) this.#forgetGone();
    if (status === STATUS.unavailable) return status;
    if (status !== STATUS.ok) {
      this.#options.onEvent({ what: 'segment-refused', client, segment: info.name, bytes: info.length, status });
    } else if (!again) {
      this.bases.set(info.id, info.base);
      this.#tell(known ? 'segment-restored' : 'segment-mounted', client, info);
    }
    return status;
  }

  /**
   * An endpoint is one process: where another client mounts under the name and endpoint of a segment, the process that
   * lent it is gone, and has been restarted before its silence was noticed. Nothing of it can be read any more.
   */
  #takeOver({ id, name, endpoint }: SegmentInfo, client: Uuid): boolean {
    const stale = this.segments().filter(
      (one) => one.client !== client && one.id !== id && one.name === name && one.endpoint === endpoint,
    );
    for (const one of stale) {
      this.#tell('segment-replaced', one.client, one);
      this.unmount(one.id, one.client);
    }
    return stale.length > 0;
  }

  /** A mount takes absent segments that would be in its way with it: what is mounted under their ids is not known then. */
  #forgetGone(): void {
    const mounted = new Set(this.segments().map(({ id }) => id));
    for (const id of this.bases.keys()) {
      if (mounted.has(id)) continue;
      this.bases.delete(id);
      this.#leaving.delete(id);
    }
  }

  #tell(what: LendingEvent['what'], client: Uuid, info?: SegmentInfo): void {
    this.#options.onEvent({ what, client, segment: info?.name, bytes: info?.length });
  }
}

const FIELDS = ['name', 'base', 'length', 'endpoint', 'protocol', 'hostId'] as const;

function isSame(a: SegmentInfo, b: SegmentInfo): boolean {
  return FIELDS.every((field) => a[field] === b[field]);
}
