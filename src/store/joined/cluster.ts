/**
 * The cluster of a joined store: metadata by Mooncake's RPC from the master, bytes by a TransferEngine straight to and from the
 * engines that hold them, memory of its own lent to all.
 *
 *   put, get ─► JoinedSession ─► RpcMetadata ─► MasterLink ─► master
 *                     │               Membership ─┘ (mount, ping, remount)
 *                     └─► LentSegments (this process) · ClusterPeers ─► EngineTransfer ─► peers
 *
 * A session lasts as long as the master remembers us. When it has forgotten us, leases that it gave and room that it
 * reserved may be another's: the clock of the old session stands at the end of time, so that nothing of it is believed.
 */

import { errors, MooncakeError } from '../../core/errors.js';
import type { Keys } from '../../core/keys.js';
import type { ObjectInfo, Replica, SegmentInfo, Uuid } from '../../master/api.js';
import { TransferEngine } from '../../transfer/engine/engine.js';
import { EngineTransfer } from '../../transfer/engine-transfer.js';
import type { CallLimits } from '../../transfer/transfer.js';
import type { StoreContext } from '../context.js';
import { Counters } from '../counters.js';
import { DiskLender, type Lent } from '../disk/lender.js';
import { oneDescriptor } from '../disk/slots.js';
import { HotCache } from '../hot-cache.js';
import { callersMemory } from '../memory.js';
import { Pacer } from '../pacer.js';
import { parseSegment, type SegmentOptions } from '../segments.js';
import { Claims, type Place, type Session, uuid } from '../session.js';
import { Staging } from '../staging.js';
import { DiskReads } from './disk-reads.js';
import { MasterLink } from './link.js';
import { Membership } from './membership.js';
import { RpcMetadata } from './metadata.js';
import type { ResolvedJoin } from './options.js';
import { ClusterPeers, mayLand } from './peers.js';
import { type LentSegment, LentSegments } from './segments.js';
import { removeCorrupt } from './suspects.js';
import { TaskRunner } from './task-runner.js';

/** Half of what masters keep the room of a silent put (put_start_release_timeout_sec, 600 s by default). */
const PUT_WINDOW_MS = 300_000;
/** For what is said at the end, to a master that may be gone. */
const GOODBYE_MS = 2000;

/** Its grace is over, and nobody knows whether the master still sends readers to it. */
function stillLent({ id, name }: SegmentInfo, error: unknown): unknown {
  if (!(error instanceof MooncakeError)) return error;
  const { code, message, argument, value } = error;
  const state = `segment ${name} (${id}) stays lent until it is unmounted again`;
  return new MooncakeError(code, `${message}; ${state}`, { argument, value, cause: error });
}

class JoinedSession implements Session {
  readonly claims = new Claims();
  readonly putWindowMs = PUT_WINDOW_MS;
  readonly #cluster: JoinedCluster;
  readonly #end = new AbortController();

  constructor(cluster: JoinedCluster) {
    this.#cluster = cluster;
  }

  get client(): Uuid {
    return this.#cluster.client;
  }

  metadata(limits?: CallLimits): RpcMetadata {
    return this.#cluster.metadata(limits);
  }

  place(replica: Replica): Place | Promise<Place> {
    return this.#cluster.place(replica);
  }

  rank(replicas: readonly Replica[]): readonly Replica[] {
    return this.#cluster.peers.rank(replicas);
  }

  suspect(keys: Keys, _replicas: readonly number[], tenant: string): Promise<void> {
    return this.#cluster.suspect(keys, tenant);
  }

  mayLand(failure: unknown): boolean {
    return mayLand(failure);
  }

  release(found: ObjectInfo): void {
    this.#cluster.diskReads.release(found);
  }

  now(): number {
    return this.ended.aborted ? Number.POSITIVE_INFINITY : performance.now();
  }

  get ended(): AbortSignal {
    return this.#end.signal;
  }

  /** The master has forgotten what it said. */
  end(): void {
    this.#end.abort(errors.peer('the master', 'it has forgotten this client'));
    this.claims.lose();
  }
}

export class JoinedCluster {
  readonly client = uuid();
  readonly transfer: EngineTransfer;
  readonly peers: ClusterPeers;
  readonly staging: Staging;
  readonly hotCache?: HotCache;
  readonly #options: ResolvedJoin;
  readonly #link: MasterLink;
  readonly #membership: Membership;
  readonly #lent: LentSegments;
  readonly #tasks: TaskRunner;
  /** Ends the waiting for segments that stay readable for a while. */
  readonly #graces = new Set<() => void>();
  #session = new JoinedSession(this);
  readonly diskReads = new DiskReads();
  #disk?: DiskLender;
  #closing?: Promise<void>;
  /** Called when the master has forgotten what it said: to whom it was passed on, it does not hold any more. */
  onForgotten: () => void = () => {};

  private constructor(options: ResolvedJoin, engine: TransferEngine) {
    this.#options = options;
    this.transfer = new EngineTransfer(engine);
    this.peers = new ClusterPeers(this.transfer);
    this.staging = new Staging(options.localBufferSize, (memory) => this.transfer.borrow(memory));
    if (options.hotCache > 0) this.hotCache = new HotCache(options.hotCache);
    this.#link = new MasterLink(options.master);
    this.#tasks = new TaskRunner(this, this.#link);
    this.#lent = new LentSegments(engine, options.protocol, options.hostId);
    this.#membership = new Membership(this.#link, this.client, () => {
      this.#session.end();
      this.#session = new JoinedSession(this);
      this.onForgotten();
    });
  }

  /** Resolves when the master knows us and our segments. */
  static async join(options: ResolvedJoin): Promise<JoinedCluster> {
    const { metadata, host, advertise, port, native, timeoutMs } = options;
    const engine = await TransferEngine.create({ metadata, host, advertise, port, native, timeoutMs });
    let cluster: JoinedCluster;
    try {
      cluster = new JoinedCluster(options, engine);
    } catch (error) {
      await engine.close();
      throw error;
    }
    try {
      for (const segment of options.segments) await cluster.#lent.add(segment);
      const segments = cluster.#lent.all.map(({ info }) => info);
      await cluster.#membership.join(segments, { timeoutMs });
      if (options.disk) cluster.#disk = await DiskLender.open(cluster.#lends(), options.disk);
      cluster.#tasks.start();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  session(): JoinedSession {
    return this.#session;
  }

  /** What a disk that is lent is part of. */
  #lends(): Lent {
    const { host, advertise, timeoutMs } = this.#options;
    const { engine } = this.transfer;
    return {
      client: this.client,
      engine,
      host,
      advertise,
      call: (method, args) => this.#link.call(method, args, { timeoutMs }),
      bytesAt: (address, size) => this.#lent.bytesAt(address, size),
      said: () => this.#session.ended,
      write: async (endpoint, address, { bytes, segment, offset }, signal) => {
        if (endpoint === engine.name) {
          const target = this.#lent.bytesAt(Number(address), bytes.length);
          if (!target) throw errors.segment('address', address, 'lies in no segment that is lent');
          target.set(bytes);
          return;
        }
        const peer = await engine.open(endpoint, { signal, timeoutMs });
        const place = peer.at(address, bytes.length);
        const one = [segment, place.segment, offset, place.offset, bytes.length] as const;
        await engine.write(peer, oneDescriptor(...one), { signal, timeoutMs });
      },
    };
  }

  metadata({ signal, timeoutMs = this.#options.timeoutMs }: CallLimits = {}): RpcMetadata {
    return new RpcMetadata(
      this.#link,
      { signal, timeoutMs },
      this.#options.hostId,
      this.#options.admin,
      this.diskReads,
    );
  }

  place(replica: Replica): Place | Promise<Place> {
    if (replica.endpoint !== this.transfer.address) return this.peers.place(replica);
    const laidOut = this.#disk?.bytesAt(replica.offset, replica.size);
    if (laidOut) return { replica: replica.id, memory: callersMemory(laidOut), offset: 0 };
    return this.#lent.place(replica);
  }

  suspect(keys: Keys, tenant: string): Promise<void> {
    return removeCorrupt(this.context(tenant), keys, tenant);
  }

  /** For work of the cluster's own. */
  context(tenant: string): StoreContext {
    return {
      transfer: this.transfer,
      staging: this.staging,
      counters: new Counters(),
      pacer: new Pacer(),
      checksum: true,
      verify: true,
      requireChecksum: false,
      tenant,
      timeoutMs: this.#options.timeoutMs,
      session: () => this.#session,
    };
  }

  /** Lends more memory; the segment's id. */
  async mount(spec: SegmentOptions): Promise<Uuid> {
    const lent = await this.#lent.add(parseSegment('segment', spec));
    try {
      await this.#membership.mount(lent.info, { timeoutMs: this.#options.timeoutMs });
    } catch (error) {
      await this.#lent.remove(lent);
      throw error;
    }
    return lent.info.id;
  }

  /** Where descriptors of engines are found. */
  get engines(): string {
    return this.#options.metadata;
  }

  /** Whether the master can be asked now. */
  get isConnected(): boolean {
    return this.#link.isConnected;
  }

  /** What is lent to the cluster. */
  get lent(): readonly SegmentInfo[] {
    return this.#lent.all.map(({ info }) => info);
  }

  /**
   * Takes segments of this name or id away; resolves when nobody copies from them any more. With a grace they stay readable
   * so long, unless the store is closed before. Where the master cannot be asked, they stay lent as they are, also those whose
   * grace is over, until this is called again.
   * @throws ERR_SEGMENT where nothing of that name is lent; ERR_PEER, ERR_TIMEOUT where the master cannot be asked
   */
  async unmount(segment: string, graceMs: number): Promise<void> {
    const { gone } = await this.beginUnmount(segment, graceMs);
    await gone;
  }

  /** As `unmount`, but resolves when the master knows; `gone` is the rest of it. */
  async beginUnmount(segment: string, graceMs: number): Promise<{ gone: Promise<void> }> {
    const { timeoutMs } = this.#options;
    const lent = this.#lent.all.filter(({ info }) => info.id === segment || info.name === segment);
    if (lent.length === 0) throw errors.segment('segment', segment, 'no such segment is mounted');
    await Promise.all(lent.map(({ info }) => this.#membership.unmount(info, graceMs, { timeoutMs })));
    return { gone: Promise.all(lent.map((each) => this.#withdraw(each, graceMs))).then(() => {}) };
  }

  async #withdraw(lent: LentSegment, graceMs: number): Promise<void> {
    if (graceMs > 0) {
      await this.#grace(graceMs);
      // Closing takes all away.
      if (this.#closing) return;
      // Masters look after such segments now and then: until it is gone for them, it must be there.
      try {
        await this.#membership.unmount(lent.info, 0, { timeoutMs: this.#options.timeoutMs });
      } catch (error) {
        throw stillLent(lent.info, error);
      }
    }
    await this.#lent.remove(lent);
  }

  /** The disk is the master's no more; who was sent to it before is served for so long. Nothing where none is lent. */
  async unmountDisk(graceMs: number): Promise<void> {
    if (!this.#disk) return;
    await this.#disk.withdraw();
    await this.#grace(graceMs);
  }

  /** Ends with the store. */
  #grace(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#graces.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      this.#graces.add(end);
    });
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** Puts under way are taken back, segments taken away; a master that hangs holds nobody up for longer than goodbyes may take. */
  async #close(): Promise<void> {
    this.#link.closeWithin(GOODBYE_MS);
    await this.#session.claims.close();
    await this.#disk?.close();
    await this.#tasks.close();
    this.#membership.leave();
    for (const end of this.#graces) end();
    const lent = this.#lent.all;
    for (const { memory } of lent) memory.retired = true;
    await Promise.all(
      lent.map(({ info }) => this.#membership.unmount(info, 0, { timeoutMs: GOODBYE_MS }).catch(() => {})),
    );
    this.diskReads.close();
    this.#link.close();
    await this.transfer.close();
  }
}
