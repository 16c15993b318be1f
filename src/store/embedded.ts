/** The cluster of an embedded store: the metadata service and the segments, in this process. */
import { string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { MetadataClient, Replica, SegmentInfo } from '../master/api.js';
import { MetadataService } from '../master/service.js';
import { STATUS } from '../master/status.js';
import { LocalTransfer } from '../transfer/local.js';
import type { Transfer } from '../transfer/transfer.js';
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

/** How often time passes for the service when nobody calls: expired leases and late puts release what they held. */
const TICK_MS = 1000;

export class EmbeddedCluster implements Session {
  readonly client = uuid();
  readonly claims = new Claims();
  readonly now: () => number;
  readonly transfer: Transfer;
  readonly #service: MetadataService;
  readonly #metadata: InProcess;
  readonly #ownTransfer: boolean;
  readonly #hostId: string;
  readonly #segments = new Map<string, Mounted>();
  readonly #doors = new Set<Transfer>();
  readonly #serving = new Set<() => void>();
  readonly #ticks: NodeJS.Timeout;

  constructor(options: StoreOptions) {
    this.#hostId = string('hostId', options.hostId ?? '');
    const segments = parseSegments(options.segments ?? '1GB');
    this.#service = new MetadataService(options);
    this.#metadata = new InProcess(this.#service);
    this.now = options.now ?? (() => performance.now());
    this.#ownTransfer = options.transfer === undefined;
    if (!this.#ownTransfer) checkTransfer(options.transfer);
    this.transfer = options.transfer ?? new LocalTransfer();
    this.#doors.add(this.transfer);
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
  async suspect(keys: Keys, tenant: string): Promise<void> {
    this.#service.remove(keys, true, tenant);
  }

  place(replica: Replica): Place {
    const mounted = this.#segments.get(replica.segmentName);
    if (mounted?.id !== replica.segment) {
      throw errors.segment('segment', replica.segmentName, 'is not mounted any more');
    }
    return { memory: mounted.memory, offset: replica.offset };
  }

  mount(spec: SegmentOptions): string {
    return this.#mount(parseSegment('segment', spec));
  }

  async unmount(name: string): Promise<void> {
    const mounted = this.#segments.get(string('name', name));
    if (mounted === undefined) throw errors.segment('name', name, 'no such segment is mounted');
    this.#segments.delete(name);
    mounted.memory.retired = true;
    this.#service.unmountSegment(mounted.id, this.client);
    await this.#withdraw(mounted);
  }

  /** `examine` reads objects where they lie; its misses are removed. */
  serve(transfer: Transfer, examine: Served['examine']): () => void {
    const stop = serveStore(transfer, { home: this.transfer.address, metadata: this.#metadata, examine });
    if (transfer !== this.transfer && !this.#doors.has(transfer)) {
      this.#doors.add(transfer);
      for (const [name, mounted] of this.#segments) this.#register(transfer, name, mounted);
    }
    this.#serving.add(stop);
    return () => {
      this.#serving.delete(stop);
      stop();
    };
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
      for (const transfer of this.#doors) this.#register(transfer, name, mounted);
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
    registered.set(transfer, transfer.register(memory.bytes, { name }));
  }

  /** Takes a segment from every transfer; resolves when nobody copies from it any more. */
  async #withdraw({ registered }: Mounted): Promise<void> {
    await Promise.all([...registered].map(([transfer, segment]) => transfer.unregister(segment)));
  }
}
