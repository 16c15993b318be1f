/** The cluster of an embedded store: the metadata service and the segments, in this process. */
import { boolean, string } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { MetadataClient, ObjectInfo, Outcome, Replica, SegmentInfo } from '../master/api.js';
import { resolveOptions } from '../master/options.js';
import { MetadataService } from '../master/service.js';
import { STATUS } from '../master/status.js';
import { LocalTransfer } from '../transfer/local.js';
import type { Transfer } from '../transfer/transfer.js';
import { pick } from './batch.js';
import type { SegmentMemory } from './memory.js';
import { InProcess } from './metadata.js';
import type { StoreOptions } from './options.js';
import { type OwnSegment, parseSegment, parseSegments, type SegmentOptions, virtualBase } from './segments.js';
import { type Served, serveStore } from './server.js';
import { Claims, checkTransfer, type Place, type Session, uuid } from './session.js';

interface Mounted {
  readonly id: string;
  readonly memory: SegmentMemory;
  /** Its number in each transfer through which it is reached. */
  readonly registered: Map<Transfer, number>;
}

/** Bytes of the smallest page that a kernel hands out. */
const KERNEL_PAGE = 4096;

/** How often time passes for the service when nobody calls: expired leases and late puts release what they held. */
const TICK_MS = 1000;

export class EmbeddedCluster implements Session {
  readonly client = uuid();
  readonly claims = new Claims();
  readonly now: () => number;
  readonly putWindowMs: number;
  readonly transfer: Transfer;
  readonly #service: MetadataService;
  readonly #metadata: InProcess;
  readonly #ownTransfer: boolean;
  readonly #hostId: string;
  readonly #populate: boolean;
  readonly #segments = new Map<string, Mounted>();
  /** The transfers through which segments are reached, and how often each is served; our own always is. */
  readonly #doors = new Map<Transfer, number>();
  readonly #serving = new Set<() => void>();
  readonly #ticks: NodeJS.Timeout;

  constructor(options: StoreOptions) {
    this.#hostId = string('hostId', options.hostId ?? '');
    this.#populate = boolean('populate', options.populate ?? false);
    const segments = parseSegments(options.segments ?? '1GB');
    this.#service = new MetadataService(options);
    this.#metadata = new InProcess(this.#service);
    const { now, putReleaseMs } = resolveOptions(options);
    this.now = now;
    this.putWindowMs = putReleaseMs;
    this.#ownTransfer = options.transfer === undefined;
    if (!this.#ownTransfer) checkTransfer(options.transfer);
    this.transfer = options.transfer ?? new LocalTransfer();
    this.#doors.set(this.transfer, 1);
    try {
      for (const segment of segments) this.#mount(segment);
    } catch (error) {
      void this.close();
      throw error;
    }
    this.#ticks = setInterval(() => this.#service.tick(), TICK_MS).unref();
  }

  session(): Session {
    return this;
  }

  metadata(): MetadataClient {
    return this.#metadata;
  }

  /** Our own readers read the bytes where they lie: what they found corrupt is. */
  async suspect(keys: Keys, replicas: readonly number[], tenant: string): Promise<void> {
    const same = (outcome: Outcome<ObjectInfo>, i: number) =>
      outcome.ok && outcome.value.replicas.some(({ id }) => id === replicas[i]);
    const there = this.#service.peek(keys, tenant);
    const corrupt = [...there.keys()].filter((i) => same(there[i], i));
    this.#service.remove(pick(keys, corrupt), true, tenant);
  }

  rank(replicas: readonly Replica[]): readonly Replica[] {
    return replicas;
  }

  place(replica: Replica): Place {
    const mounted = this.#segments.get(replica.segmentName);
    if (mounted?.id !== replica.segment) {
      throw errors.segment('segment', replica.segmentName, 'is not mounted any more');
    }
    return { replica: replica.id, memory: mounted.memory, offset: replica.offset };
  }

  mount(spec: SegmentOptions): string {
    return this.#mount(parseSegment('segment', spec));
  }

  async unmount(name: string, graceMs: number): Promise<void> {
    if (graceMs > 0) throw errors.notSupported('graceMs of an embedded store', 'its readers are in its own hands');
    const mounted = this.#segments.get(name);
    if (mounted === undefined) throw errors.segment('name', name, 'no such segment is mounted');
    this.#segments.delete(name);
    mounted.memory.retired = true;
    this.#service.unmountSegment(mounted.id, this.client);
    await this.#withdraw(mounted);
  }

  /** `examine` reads objects where they lie; its misses are removed. */
  serve(transfer: Transfer, examine: Served['examine']): () => void {
    const { address: home } = this.transfer;
    const { end } = serveStore(transfer, { home, putReleaseMs: this.putWindowMs, metadata: this.#metadata, examine });
    const stop = () => {
      if (!this.#serving.delete(stop)) return;
      end();
      this.#leave(transfer);
    };
    this.#serving.add(stop);
    const times = this.#doors.get(transfer) ?? 0;
    this.#doors.set(transfer, times + 1);
    if (times === 0) for (const [name, mounted] of this.#segments) this.#register(transfer, name, mounted);
    return stop;
  }

  /** The segments are served once less through a transfer; after the last time nobody reaches them there. */
  #leave(transfer: Transfer): void {
    const times = (this.#doors.get(transfer) ?? 1) - 1;
    if (times > 0) {
      this.#doors.set(transfer, times);
      return;
    }
    this.#doors.delete(transfer);
    for (const { registered } of this.#segments.values()) {
      const segment = registered.get(transfer);
      registered.delete(transfer);
      // Whoever has unregistered it himself has done our work.
      if (segment !== undefined) void transfer.unregister(segment).catch(() => {});
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#ticks);
    for (const stop of this.#serving) stop();
    const mounted = [...this.#segments.values()];
    this.#segments.clear();
    for (const { memory } of mounted) memory.retired = true;
    if (this.#ownTransfer) await this.transfer.close();
    await Promise.all(mounted.map((segment) => this.#withdraw(segment)));
  }

  #mount(segment: OwnSegment): string {
    const name = segment.name ?? `store-${uuid().slice(0, 16)}`;
    if (this.#segments.has(name)) throw errors.segment('name', name, 'a segment of that name is mounted');
    const mounted: Mounted = { id: uuid(), memory: segment.memory(), registered: new Map() };
    if (this.#populate) populate(mounted.memory.bytes);
    const { address } = this.transfer;
    const info: SegmentInfo = {
      id: mounted.id,
      name,
      base: virtualBase(segment.length),
      length: segment.length,
      endpoint: address,
      protocol: address.slice(0, address.indexOf(':')),
      hostId: this.#hostId,
    };
    try {
      for (const transfer of this.#doors.keys()) this.#register(transfer, name, mounted);
      const status = this.#service.mountSegment(info, this.client);
      if (status !== STATUS.ok) throw errors.segment('name', name, `the service refused it with status ${status}`);
    } catch (error) {
      void this.#withdraw(mounted);
      throw error;
    }
    this.#segments.set(name, mounted);
    return name;
  }

  #register(transfer: Transfer, name: string, { memory, registered }: Mounted): void {
    try {
      registered.set(transfer, transfer.register(memory.bytes, { name }));
    } catch (error) {
      const closed = error instanceof MooncakeError && error.code === 'ERR_CLOSED';
      if (!closed || transfer === this.transfer) throw error;
      // It was closed by whoever made it: nobody comes through it any more.
    }
  }

  /** Takes a segment from every transfer; resolves when nobody copies from it any more. */
  async #withdraw({ registered }: Mounted): Promise<void> {
    await Promise.all([...registered].map(([transfer, segment]) => transfer.unregister(segment)));
  }
}

/** A page is there once it was written; what a caller's memory holds stays. */
function populate(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += KERNEL_PAGE) bytes[at] |= 0;
}
