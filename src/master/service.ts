/**
 * The metadata service of the store: which objects there are, where their bytes lie, who may have the space next. It moves
 * no bytes, has no timers and does no input or output: an embedded store calls it, a networked master will serve it. All
 * that runs out with time is looked at when a call comes; an owner with a long quiet time may call `tick`.
 *
 *   puts ─► Eviction ─► Segments (allocator)        what the calls mean: docs/store.md
 *     │         │
 *   Books: object table, tenants, groups, space kept back          reads · removal · scans
 */
import { boolean, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type {
  DiskStats,
  LongMetadata,
  Metadata,
  MetadataStats,
  ObjectInfo,
  Outcome,
  Replica,
  ReplicateConfig,
  SegmentFigures,
  SegmentInfo,
  Status,
  Uuid,
} from './api.js';
import { Books } from './books.js';
import { checkUuid } from './check.js';
import { Copies } from './copies.js';
import { DiskReplicas } from './disk-replicas.js';
import { Eviction } from './eviction.js';
import { type MetadataOptions, resolveOptions } from './options.js';
import { Puts } from './puts.js';
import { Reads } from './reads.js';
import { Removal } from './removal.js';
import { type ObjectCopies, Scans } from './scan.js';
import type { Drain, Segment } from './segments.js';
import { STATUS } from './status.js';
import { DEFAULT_TENANT } from './tenants.js';

export class MetadataService implements Metadata, LongMetadata {
  /** The calls of clients that lend disks. */
  readonly disks: DiskReplicas;
  readonly #books: Books;
  readonly #eviction: Eviction;
  readonly #puts: Puts;
  readonly #reads: Reads;
  readonly #removal: Removal;
  readonly #scans: Scans;
  /** Copies and moves of readable objects. */
  readonly copies: Copies;

  /** @throws ERR_INVALID_ARGUMENT naming the option */
  constructor(options?: MetadataOptions, books = new Books(resolveOptions(options))) {
    this.#books = books;
    this.#eviction = new Eviction(this.#books);
    this.#puts = new Puts(this.#books, this.#eviction);
    this.#reads = new Reads(this.#books);
    this.#removal = new Removal(this.#books);
    this.disks = new DiskReplicas(this.#books);
    this.#scans = new Scans(this.#books, this.#removal);
    this.copies = new Copies(this.#books);
  }

  putStart(
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    config: ReplicateConfig,
    tenant = DEFAULT_TENANT,
  ): Outcome<Replica[]>[] {
    return this.#puts.start(client, keys, sizes, config, tenant, false);
  }

  putEnd(client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant = DEFAULT_TENANT): Status[] {
    return this.#puts.end(client, keys, checksums, tenant);
  }

  putRevoke(client: Uuid, keys: Keys, tenant = DEFAULT_TENANT): Status[] {
    return this.#puts.revoke(client, keys, tenant);
  }

  upsertStart(
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    config: ReplicateConfig,
    tenant = DEFAULT_TENANT,
  ): Outcome<Replica[]>[] {
    return this.#puts.start(client, keys, sizes, config, tenant, true);
  }

  upsertEnd(client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant = DEFAULT_TENANT): Status[] {
    return this.#puts.end(client, keys, checksums, tenant);
  }

  upsertRevoke(client: Uuid, keys: Keys, tenant = DEFAULT_TENANT): Status[] {
    return this.#puts.revoke(client, keys, tenant);
  }

  getReplicas(keys: Keys, tenant = DEFAULT_TENANT): Outcome<ObjectInfo>[] {
    return this.#reads.getReplicas(keys, tenant);
  }

  /** The same for one key, 1 to 65,535 bytes. */
  getReplica(key: Uint8Array, tenant = DEFAULT_TENANT): Outcome<ObjectInfo> {
    return this.#reads.getReplica(key, tenant);
  }

  exist(keys: Keys, tenant = DEFAULT_TENANT): Int32Array {
    return this.#reads.exist(keys, tenant);
  }

  /** The same for one key, 1 to 65,535 bytes: 1, 0, or a negative status. */
  has(key: Uint8Array, tenant = DEFAULT_TENANT): number {
    return this.#reads.has(key, tenant);
  }

  peek(keys: Keys, tenant = DEFAULT_TENANT): Outcome<ObjectInfo>[] {
    return this.#reads.peek(keys, tenant);
  }

  remove(keys: Keys, force = false, tenant = DEFAULT_TENANT): Status[] {
    return this.#removal.remove(keys, boolean('force', force), tenant);
  }

  /** Takes copies of a client's own objects away: those in segments of a name, or all where it is empty. */
  clearReplicas(client: Uuid, keys: Keys, segmentName: string, tenant = DEFAULT_TENANT): Status[] {
    return this.#removal.clear(client, keys, segmentName, tenant);
  }

  async removeByRegex(pattern: string, force = false, tenant = DEFAULT_TENANT): Promise<number> {
    return this.#scans.removeByRegex(pattern, boolean('force', force), tenant);
  }

  async removeAll(force = false, tenant = DEFAULT_TENANT): Promise<number> {
    const inUse = this.#books.disks.all.filter((disk) => disk.objects > 0);
    const removed = await this.#scans.removeAll(boolean('force', force), tenant);
    for (const disk of inUse) if (disk.objects === 0) disk.mayWipe = true;
    return removed;
  }

  /** The same with the copies on disks, and with objects that have no others. */
  async copiesByRegex(pattern: string, tenant = DEFAULT_TENANT): Promise<Map<string, ObjectCopies>> {
    return this.#scans.copiesByRegex(pattern, tenant);
  }

  async replicasByRegex(pattern: string, tenant = DEFAULT_TENANT): Promise<Map<string, readonly Replica[]>> {
    return this.#scans.replicasByRegex(pattern, tenant);
  }

  async keys(tenant = DEFAULT_TENANT): Promise<string[]> {
    return this.#scans.keys(tenant);
  }

  mountSegment(segment: SegmentInfo, client: Uuid): Status {
    checkUuid('client', client);
    if (typeof segment !== 'object' || segment === null) throw errors.invalidArgument('segment', segment, 'an object');
    checkUuid('segment.id', segment.id);
    for (const field of ['name', 'endpoint', 'protocol', 'hostId'] as const) string(`segment.${field}`, segment[field]);
    return this.#books.mount(segment, client, this.#books.begin());
  }

  unmountSegment(segment: Uuid, client: Uuid): Status {
    checkUuid('segment', segment);
    checkUuid('client', client);
    this.#books.begin();
    const mounted = this.#books.segments.byId(segment);
    if (!mounted) return STATUS.ok;
    if (mounted.client !== client) return STATUS.notOwner;
    this.#books.unmounts.begin(mounted);
    return STATUS.ok;
  }

  /**
   * Resolves when everything of the segments that were unmounted is struck out. Nothing of them is offered any more as soon
   * as `unmountSegment` returns; until this resolves their memory cannot be mounted again (-1010).
   */
  unmounted(): Promise<void> {
    return this.#books.unmounts.ended;
  }

  /** Nothing new is placed in a segment from now on; what is there stays readable until it is unmounted. */
  leaveSegment(segment: Uuid, client: Uuid): Status {
    checkUuid('segment', segment);
    checkUuid('client', client);
    const mounted = this.#books.segments.byId(segment);
    if (!mounted) return STATUS.segmentNotFound;
    if (mounted.client !== client) return STATUS.notOwner;
    if (mounted.drain !== 'none') return STATUS.unavailable;
    this.#books.segments.leave(mounted);
    return STATUS.ok;
  }

  /**
   * Every segment of that name, whose objects are to be moved away or have been: nothing new is placed there; `none`: they take
   * objects again, but for one that leaves.
   */
  setDrain(name: string, drain: Drain): void {
    const { segments } = this.#books;
    for (const segment of segments.named(name)) {
      if (segment.isLeaving === (segment.drain !== 'none') && segment.drain !== drain)
        segments.setDrain(segment, drain);
    }
  }

  segments(): SegmentFigures[] {
    this.#books.begin();
    const figures = ({ info, client, isLeaving, isAbsent, drain, used, capacity, replicas, kept }: Segment) => ({
      ...info,
      client,
      isLeaving,
      isAbsent,
      drain,
      usedBytes: used,
      capacityBytes: capacity,
      objects: replicas,
      keptBack: kept,
    });
    return this.#books.segments.all.map(figures);
  }

  /** Clears away what has run out, and evicts where the watermark is passed. */
  tick(): void {
    const now = this.#books.begin();
    if (this.#books.segments.capacity > 0) this.#eviction.keepBelowWatermark(0, now);
  }

  stats(): MetadataStats & { disks: DiskStats } {
    this.#books.begin();
    const { counters, objects, puts, segments, table, tenants, keptBack, losses, order } = this.#books;
    const { absent, evicted, removed, incomplete, 'unknown-tenant': unknown, ...rest } = counters;
    const orders = [order, ...tenants.all.map((tenant) => tenant.order)];
    return {
      ...rest,
      objects,
      incomplete: puts.size,
      disks: this.disks.stats(),
      usedBytes: segments.used,
      keptBackBytes: keptBack.bytes,
      capacityBytes: segments.capacity,
      misses: { absent, evicted, removed, incomplete, 'unknown-tenant': unknown },
      metadataBytes:
        table.stats().bytes +
        segments.metadataBytes +
        keptBack.byteLength +
        losses.byteLength +
        orders.reduce((sum, one) => sum + (one?.byteLength ?? 0), 0),
      tenants: Object.fromEntries(
        tenants.all.map(({ name, objects, usedBytes, quotaBytes }) => [
          name,
          { objects, usedBytes, quotaBytes: quotaBytes === Infinity ? null : quotaBytes },
        ]),
      ),
    };
  }
}
