/**
 * MooncakeStore: KV cache objects by key, immutable, checksummed, evicted when room is needed. The store of this class
 * is embedded (`new`: metadata and memory in this process), attached to another process's (`attach`), or joined to a Mooncake
 * cluster (`connect`); its calls are the same. Their names are those of Mooncake's Python client in camel case.
 *
 * A single call throws what went wrong with its object; a batch answers key by key. A get never throws for what a
 * cluster may do to an object: whatever is doubtful is a miss, and every miss is counted by its reason.
 */
import { boolean, integer, options as object, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { type Key, Keys } from '../core/keys.js';
import type { MetadataClient, ObjectInfo, SegmentFigures } from '../master/api.js';
import { STATUS } from '../master/status.js';
import { MAX_TIMEOUT_MS } from '../transfer/limits.js';
import type { CallLimits, Transfer } from '../transfer/transfer.js';
import type { BatchOptions, ObjectStore, PutBatchOptions, StoreMissReason } from './api.js';
import { AttachedCluster, type AttachOptions } from './attached.js';
import { checkBatch, checkKeys, checkTenant, Limits } from './batch.js';
import type { StoreContext } from './context.js';
import { Counters, MISS_REASONS, type StoreCounters, type StoreStats } from './counters.js';
import { allDevice, getRanges, isDeviceRange, putRanges } from './device-values.js';
import { EmbeddedCluster } from './embedded.js';
import type { ValueMemory } from './far-reads.js';
import { ObjectGets } from './get.js';
import type { HotCache } from './hot-cache.js';
import { JoinedCluster } from './joined/cluster.js';
import { type ConnectOptions, resolveJoin, withConfiguration } from './joined/options.js';
import type { PeerFigures } from './joined/peers.js';
import { type NodeAttachOptions, NodeCluster } from './node/attached.js';
import {
  type GetValueOptions,
  integrity,
  type PutValueOptions,
  type RemoveOptions,
  type StoreOptions,
  type TenantOptions,
} from './options.js';
import { Pacer } from './pacer.js';
import { ObjectPuts } from './put.js';
import type { SegmentOptions } from './segments.js';
import type { Session } from './session.js';
import type { Staging } from './staging.js';
import { statusError } from './status.js';
import {
  type Bytes,
  checkList,
  checkParts,
  checkValue,
  examine,
  getValues,
  type PutResult,
  putValues,
  rangeMemory,
  type SegmentRange,
  uncleared,
  viewValue,
} from './values.js';
import type { ObjectView } from './view.js';

/** Where a store's metadata and segments are. */
interface Cluster {
  readonly transfer: Transfer;
  readonly staging?: Staging;
  readonly hotCache?: HotCache;
  readonly peers?: { readonly figures: readonly PeerFigures[] };
  session(): Session | Promise<Session>;
  close(): Promise<void>;
}

/** What a store node builds on, beside the store's calls. */
export interface StoreParts {
  readonly cluster: Cluster;
  readonly counters: Counters;
  readonly context: StoreContext;
}

/** For this package alone. */
export let storeParts: (store: MooncakeStore) => StoreParts;

export class MooncakeStore implements ObjectStore {
  static {
    storeParts = (store) => ({ cluster: store.#cluster, counters: store.#counters, context: store.#open() });
  }

  readonly transfer: Transfer;
  readonly #cluster: Cluster;
  readonly #counters = new Counters();
  readonly #context: StoreContext;
  #closing: Promise<void> | undefined;

  /**
   * An embedded store. `cluster` is for `attach`.
   * @throws ERR_INVALID_ARGUMENT naming the option, ERR_OUT_OF_MEMORY where the segments cannot be had
   */
  constructor(options?: StoreOptions, cluster?: Cluster) {
    const checked: StoreOptions & { tenant?: string } = object('options', options);
    const timeoutMs = integer('timeoutMs', checked.timeoutMs ?? 30_000, 1, MAX_TIMEOUT_MS);
    const policy = integrity(checked);
    this.#cluster = cluster ?? new EmbeddedCluster(checked);
    this.transfer = this.#cluster.transfer;
    this.#context = {
      transfer: this.transfer,
      staging: this.#cluster.staging,
      hotCache: this.#cluster.hotCache,
      counters: this.#counters,
      pacer: new Pacer(),
      tenant: string('tenant', cluster ? (checked.tenant ?? 'default') : 'default'),
      timeoutMs,
      session: () => this.#cluster.session(),
      ...policy,
    };
  }

  /**
   * A store whose metadata and segments are in another process, which serves them (`serve`) at `address` of a transfer
   * like the one given. Bytes move straight between the caller's memory and the owner's segments. When the connection is
   * lost, unfinished puts are taken back by the owner, calls reject with ERR_PEER or miss as `peer-lost`, and the next
   * call connects anew. With `node`, to a store node of this host: bytes go by shared memory to and from its segments, and
   * straight to those of its cluster's other members.
   * @throws ERR_PEER where nothing answers, ERR_NOT_SUPPORTED where no store is served
   */
  static async attach(options: AttachOptions | NodeAttachOptions): Promise<MooncakeStore> {
    if ('node' in object('options', options)) {
      integrity(options);
      return new MooncakeStore(options, await NodeCluster.attach(options as NodeAttachOptions));
    }
    const cluster = new AttachedCluster(options as AttachOptions);
    const store = new MooncakeStore(options, cluster);
    await cluster.session();
    return store;
  }

  /**
   * Joins a cluster by Mooncake's own wire: a stock master or ours, peers of both kinds. Resolves when the master knows this
   * store and the memory that it lends. Without a `master`, options that are not given come from the stock configuration.
   * @throws ERR_INVALID_ARGUMENT naming the option, ERR_PEER where no master answers, ERR_NOT_SUPPORTED where it is of
   * another version
   */
  static async connect(options?: ConnectOptions): Promise<MooncakeStore> {
    const given = await withConfiguration(options);
    integrity(given);
    string('tenant', given.tenant ?? 'default');
    return new MooncakeStore(given, await JoinedCluster.join(resolveJoin(given)));
  }

  /** Stores a value; false when the key exists already, whatever its value: objects never change. */
  async put(key: Key, value: Bytes, options: PutValueOptions = {}): Promise<boolean> {
    return this.#putOne(key, [checkValue('value', value)], options, false);
  }

  /** Stores the concatenation of the parts, without making it first. */
  async putParts(key: Key, parts: readonly Bytes[], options: PutValueOptions = {}): Promise<boolean> {
    return this.#putOne(key, checkParts('parts', parts), options, false);
  }

  /** Stores a range of registered memory, of this process or of a GPU. */
  async putFrom(key: Key, range: SegmentRange, options: PutValueOptions = {}): Promise<boolean> {
    return this.#putRange(key, range, options, false);
  }

  /** Stores a value in place of the one there is; until it is whole, readers get the old one. */
  async upsert(key: Key, value: Bytes, options: PutValueOptions = {}): Promise<void> {
    await this.#putOne(key, [checkValue('value', value)], options, true);
  }

  async upsertParts(key: Key, parts: readonly Bytes[], options: PutValueOptions = {}): Promise<void> {
    await this.#putOne(key, checkParts('parts', parts), options, true);
  }

  async upsertFrom(key: Key, range: SegmentRange, options: PutValueOptions = {}): Promise<void> {
    await this.#putRange(key, range, options, true);
  }

  /** Statuses per key: 0 stored, -705 there already (also for a key named twice), otherwise why not. */
  async batchPut(keys: KeyList, values: readonly Bytes[], options: PutValueOptions = {}): Promise<Int32Array> {
    return this.#putMany(keys, 'values', values, (name, value) => [checkValue(name, value)], options, false);
  }

  async batchPutParts(
    keys: KeyList,
    values: readonly (readonly Bytes[])[],
    options: PutValueOptions = {},
  ): Promise<Int32Array> {
    return this.#putMany(keys, 'values', values, checkParts, options, false);
  }

  async batchPutFrom(
    keys: KeyList,
    ranges: readonly SegmentRange[],
    options: PutValueOptions = {},
  ): Promise<Int32Array> {
    return this.#putRanges(keys, ranges, options, false);
  }

  async batchUpsert(keys: KeyList, values: readonly Bytes[], options: PutValueOptions = {}): Promise<Int32Array> {
    return this.#putMany(keys, 'values', values, (name, value) => [checkValue(name, value)], options, true);
  }

  async batchUpsertParts(
    keys: KeyList,
    values: readonly (readonly Bytes[])[],
    options: PutValueOptions = {},
  ): Promise<Int32Array> {
    return this.#putMany(keys, 'values', values, checkParts, options, true);
  }

  async batchUpsertFrom(
    keys: KeyList,
    ranges: readonly SegmentRange[],
    options: PutValueOptions = {},
  ): Promise<Int32Array> {
    return this.#putRanges(keys, ranges, options, true);
  }

  /** The value, in memory of its own; undefined for a miss. */
  async get(key: Key, options: GetValueOptions = {}): Promise<Uint8Array | undefined> {
    return (await this.batchGet([key], options))[0];
  }

  async batchGet(keys: KeyList, options: GetValueOptions = {}): Promise<(Uint8Array | undefined)[]> {
    const packed = checkKeys(Keys.from(keys));
    const values: (Uint8Array | undefined)[] = new Array(packed.length).fill(undefined);
    const target = (i: number, size: number) => ({ bytes: (values[i] = uncleared(size)) });
    const statuses = await getValues(this.#open(), packed, target, options, true);
    for (const [i, status] of statuses.entries()) if (status !== 0) values[i] = undefined;
    return values;
  }

  /**
   * Reads the value into `into`; its size in bytes, or undefined for a miss: a value larger than `into` is one. After a
   * miss the bytes of `into` mean nothing.
   */
  async getInto(key: Key, into: Uint8Array | SegmentRange, options: GetValueOptions = {}): Promise<number | undefined> {
    const [size] = await this.batchGetInto([key], [into], options);
    return size < 0 ? undefined : size;
  }

  /** Sizes in bytes per key; a negative status for a miss. */
  async batchGetInto(
    keys: KeyList,
    into: readonly (Uint8Array | SegmentRange)[],
    options: GetValueOptions = {},
  ): Promise<Float64Array> {
    const packed = checkKeys(Keys.from(keys));
    if (allDevice(this.transfer, 'into', checkList('into', into, packed))) {
      return getRanges(this.#open(), packed, into as readonly SegmentRange[], options);
    }
    const targets = into.map((target, i) =>
      target instanceof Uint8Array
        ? checkValue(`into[${i}]`, target)
        : rangeMemory(this.transfer, `into[${i}]`, target),
    );
    const sizes = new Float64Array(packed.length);
    const fit = (i: number, size: number) => {
      sizes[i] = size;
      const { bytes, ...place } = targets[i];
      return size <= bytes.length ? { bytes: bytes.subarray(0, size), ...place } : undefined;
    };
    const statuses = await getValues(this.#open(), packed, fit, options, false);
    for (const [i, status] of statuses.entries()) if (status !== 0) sizes[i] = status;
    return sizes;
  }

  /** The value where it lies, protected by a lease; undefined for a miss. */
  async getView(key: Key, options: GetValueOptions = {}): Promise<ObjectView | undefined> {
    return viewValue(this.#open(), Keys.from([key]), options);
  }

  /** Whether there is a value to read; protects it for one lease and does not count as use. */
  async isExist(key: Key, options: TenantOptions = {}): Promise<boolean> {
    const [found] = await this.batchIsExist([key], options);
    if (found < 0) throw statusError(found, Keys.from([key]).text(0));
    return found === 1;
  }

  async batchIsExist(keys: KeyList, options: TenantOptions = {}): Promise<Int32Array> {
    const packed = checkKeys(Keys.from(keys));
    const metadata = await this.#metadata(options);
    return metadata.exist(packed, checkTenant(options.tenant, this.#context));
  }

  /** Bytes of the value, or undefined. Grants no lease. */
  async getSize(key: Key, options: TenantOptions = {}): Promise<number | undefined> {
    const [size] = await this.batchGetSize([key], options);
    return size < 0 ? undefined : size;
  }

  /** Bytes per key, or a negative status. */
  async batchGetSize(keys: KeyList, options: TenantOptions = {}): Promise<Float64Array> {
    const packed = checkKeys(Keys.from(keys));
    const metadata = await this.#metadata(options);
    const found = await metadata.peek(packed, checkTenant(options.tenant, this.#context));
    return Float64Array.from(found, (outcome) => (outcome.ok ? outcome.value.size : outcome.status));
  }

  /** Where the value lies, its size and checksum; undefined where it is absent or not ready. Counts as a read. */
  async getReplicas(key: Key, options: TenantOptions = {}): Promise<ObjectInfo | undefined> {
    return (await this.batchGetReplicas([key], options))[0];
  }

  async batchGetReplicas(keys: KeyList, options: TenantOptions = {}): Promise<(ObjectInfo | undefined)[]> {
    const packed = checkKeys(Keys.from(keys));
    const metadata = await this.#metadata(options);
    const found = await metadata.getReplicas(packed, checkTenant(options.tenant, this.#context));
    return found.map((outcome) => (outcome.ok ? outcome.value : undefined));
  }

  /** True when it was there. Throws ERR_LEASED while a lease protects it, unless forced. */
  async remove(key: Key, options: RemoveOptions = {}): Promise<boolean> {
    const keys = Keys.from([key]);
    const [status] = await this.batchRemove(keys, options);
    if (status === STATUS.notFound) return false;
    if (status !== STATUS.ok) throw statusError(status, keys.text(0));
    return true;
  }

  async batchRemove(keys: KeyList, options: RemoveOptions = {}): Promise<Int32Array> {
    const packed = checkKeys(Keys.from(keys));
    const metadata = await this.#metadata(options);
    const statuses = await metadata.remove(packed, checkForce(options), checkTenant(options.tenant, this.#context));
    return Int32Array.from(statuses);
  }

  /**
   * Removes what the pattern is found in and no lease protects; how many. Patterns are matched in linear time (RE2's
   * syntax).
   */
  async removeByRegex(pattern: string, options: RemoveOptions = {}): Promise<number> {
    string('pattern', pattern);
    const metadata = await this.#metadata(options);
    return metadata.removeByRegex(pattern, checkForce(options), checkTenant(options.tenant, this.#context));
  }

  /** Removes every object of the tenant that no lease protects; how many. */
  async removeAll(options: RemoveOptions = {}): Promise<number> {
    const metadata = await this.#metadata(options);
    return metadata.removeAll(checkForce(options), checkTenant(options.tenant, this.#context));
  }

  async openPut(keys: Keys, sizes: number | Float64Array, options: PutBatchOptions): Promise<ObjectPuts> {
    checkKeys(keys);
    const each = typeof sizes === 'number' ? new Float64Array(keys.length).fill(sizes) : sizes;
    if (!(each instanceof Float64Array) || each.length !== keys.length) {
      throw errors.invalidArgument('sizes', sizes, `a number, or a Float64Array of ${keys.length}`);
    }
    const largest = each.reduce((most, size) => Math.max(most, size), 0);
    const checked = checkBatch(options, largest);
    const context = this.#open();
    return ObjectPuts.open(context, keys, each.slice(), checked, new Limits(checked, context));
  }

  async openGet(keys: Keys, options: BatchOptions): Promise<ObjectGets> {
    checkKeys(keys);
    const checked = checkBatch(options, 1);
    const context = this.#open();
    return ObjectGets.open(context, keys, checked, new Limits(checked, context));
  }

  countMiss(reason: StoreMissReason, keys: number): void {
    if (!MISS_REASONS.includes(reason)) throw errors.invalidArgument('reason', reason, 'a reason for a miss');
    this.#counters.misses[reason] += integer('keys', keys, 0, Number.MAX_SAFE_INTEGER);
  }

  /** What this store has done, and where it joined a cluster, its peers and its hot cache. */
  counters(): StoreCounters {
    const { peers, hotCache } = this.#cluster;
    return { ...this.#counters.figures(), peers: peers?.figures, hotCache: hotCache?.figures };
  }

  /**
   * What this store has done, and the service's figures over all its clients: of a cluster with `options.admin`, otherwise
   * ERR_NOT_SUPPORTED; `counters` needs nobody.
   */
  async stats(limits: CallLimits = {}): Promise<StoreStats> {
    const metadata = await this.#metadata(limits);
    const of = await metadata.stats();
    return { ...this.#counters.figures(), metadata: of };
  }

  /** The segments of the cluster and how full they are. */
  async segments(limits: CallLimits = {}): Promise<SegmentFigures[]> {
    return (await this.#metadata(limits)).segments();
  }

  /** Lends more memory; what `unmountSegment` takes: the segment's name, in a cluster its id. */
  async mountSegment(segment: SegmentOptions): Promise<string> {
    return this.#lender('mountSegment').mount(segment);
  }

  /**
   * Takes a segment away, and the objects in it; resolves when nobody copies from it any more. In a cluster by its id, or all
   * of one name; with `graceMs` nothing new is placed there, and it can be read so long.
   */
  async unmountSegment(segment: string, { graceMs = 0 }: { graceMs?: number } = {}): Promise<void> {
    integer('graceMs', graceMs, 0, MAX_TIMEOUT_MS);
    await this.#lender('unmountSegment').unmount(string('segment', segment), graceMs);
  }

  /** Lets others attach, through the store's transfer or another; the function returned ends that. */
  serve(transfer?: Transfer): () => void {
    const context = this.#open();
    return this.#embedded('serve').serve(transfer ?? this.transfer, (keys, tenant) => examine(context, keys, tenant));
  }

  /** Ends the store: calls throw ERR_CLOSED. Closes its transfer if it made it itself. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#cluster.close());
  }

  #open(): StoreContext {
    if (this.#closing) throw errors.closed('the store');
    return this.#context;
  }

  /** The service, for a call that does nothing but ask it. */
  async #metadata(options: CallLimits): Promise<MetadataClient> {
    const context = this.#open();
    const limits = new Limits(object('options', options), context);
    const session = await limits.within(context.session());
    return session.metadata(limits.rest());
  }

  #embedded(call: string): EmbeddedCluster {
    this.#open();
    if (this.#cluster instanceof EmbeddedCluster) return this.#cluster;
    throw errors.notSupported(`${call} of this store`, 'an embedded store does it');
  }

  #lender(call: string): EmbeddedCluster | JoinedCluster {
    this.#open();
    if (this.#cluster instanceof EmbeddedCluster || this.#cluster instanceof JoinedCluster) return this.#cluster;
    throw errors.notSupported(`${call} of an attached store`, 'the process that owns the segments does it');
  }

  async #putOne(key: Key, parts: readonly ValueMemory[], options: PutValueOptions, upsert: boolean): Promise<boolean> {
    const keys = Keys.from([key]);
    if (parts.every(({ bytes }) => bytes.length === 0))
      throw errors.invalidArgument('value', parts.length === 1 ? parts[0].bytes : parts, 'at least one byte');
    return this.#stored(keys, await putValues(this.#open(), keys, [parts], options, upsert));
  }

  #stored(keys: Keys, { statuses, reasons }: PutResult): boolean {
    if (statuses[0] === STATUS.exists) return false;
    if (statuses[0] !== STATUS.ok) throw statusError(statuses[0], keys.text(0), reasons[0]);
    return true;
  }

  async #putRange(key: Key, range: SegmentRange, options: PutValueOptions, upsert: boolean): Promise<boolean> {
    const keys = Keys.from([key]);
    if (!isDeviceRange(this.transfer, 'range', range)) {
      return this.#putOne(key, [rangeMemory(this.transfer, 'range', range)], options, upsert);
    }
    integer('range.length', range.length, 1, Number.MAX_SAFE_INTEGER);
    return this.#stored(keys, await putRanges(this.#open(), keys, [range], options, upsert));
  }

  async #putRanges(
    keys: KeyList,
    ranges: readonly SegmentRange[],
    options: PutValueOptions,
    upsert: boolean,
  ): Promise<Int32Array> {
    const packed = checkKeys(Keys.from(keys));
    if (allDevice(this.transfer, 'ranges', checkList('ranges', ranges, packed))) {
      return (await putRanges(this.#open(), packed, ranges, options, upsert)).statuses;
    }
    const bytes = (name: string, range: SegmentRange) => [rangeMemory(this.transfer, name, range)];
    return this.#putMany(packed, 'ranges', ranges, bytes, options, upsert);
  }

  async #putMany<T>(
    keys: KeyList,
    argument: string,
    list: readonly T[],
    parts: (argument: string, value: T) => ValueMemory[],
    options: PutValueOptions,
    upsert: boolean,
  ): Promise<Int32Array> {
    const packed = checkKeys(Keys.from(keys));
    const values = checkList(argument, list, packed).map((value, i) => parts(`${argument}[${i}]`, value));
    return (await putValues(this.#open(), packed, values, options, upsert)).statuses;
  }
}

type KeyList = readonly Key[] | Keys;

function checkForce({ force }: RemoveOptions): boolean {
  return boolean('force', force ?? false);
}
