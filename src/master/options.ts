/** What a metadata service can be told; the defaults are those of Mooncake's master. */
import { boolean, options as checkOptions, integer, oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';

export const STRATEGIES = ['random', 'free_ratio_first', 'ssd_free_ratio_first', 'local_first'] as const;

/** How segments are chosen: docs/store.md. */
export type AllocationStrategy = (typeof STRATEGIES)[number];

export interface TenantPolicy {
  /** Bytes that the tenant's objects may take, all replicas counted. Default: no limit. */
  quotaBytes?: number;
}

export interface MetadataOptions {
  /** How long a lookup or a read protects an object, in ms. Default 10,000. */
  leaseTtlMs?: number;
  /** How long a soft pin lasts when the put does not say, in ms. Default 30 min. */
  softPinTtlMs?: number;
  /** Longest soft pin that a put may ask for, in ms. Default 24 h. */
  maxSoftPinTtlMs?: number;
  /** Soft-pinned objects go when nothing else can. Default true; false: a soft pin holds like a hard one. */
  allowEvictSoftPinned?: boolean;
  /** Share of the objects that one run of eviction frees, above 0 to 1; at most 1,024 objects. Default 0.05. */
  evictionRatio?: number;
  /** Share of the capacity that a put may fill before eviction runs, above 0 to 1. Default 0.90. */
  evictionHighWatermark?: number;
  /** Age from which a put that has not ended may be preempted by another of the same key, in ms. Default 30,000. */
  putDiscardMs?: number;
  /** Age until which the space of such a put is kept back, in ms: a late write may land in it. Default 600,000. */
  putReleaseMs?: number;
  /** Default `random`. */
  allocationStrategy?: AllocationStrategy;
  /** Offsets and sizes of allocations are multiples of it: a power of two. Default 64, a cache line. */
  alignment?: number;
  /** Segments that may be mounted at once, 1 to 32,768; each reserves 6 KB. Default 1024. */
  maxSegments?: number;
  /** The tenants that are served, by name; all others are refused. Default: every tenant is served, without quota. */
  tenants?: Readonly<Record<string, TenantPolicy>> | ReadonlyMap<string, TenantPolicy>;
  /** Instances over which the object table is spread, each with up to 4 GiB of memory. Default 1. */
  shards?: number;
  /** Upper bound of the object table's memory, in bytes; when it is full, objects are evicted. Default 4 GiB a shard. */
  maxTableBytes?: number;
  /** How many evicted and removed keys are remembered, to say why they are missed. Default 65,536. */
  recentLosses?: number;
  /** Clients may lend disks: objects are written to them, and read from them when their memory is needed. Default false. */
  offload?: boolean;
  /** An object goes to a disk when it would be evicted, and not when its put ends. Default false. */
  offloadOnEvict?: boolean;
  /** Then what no disk takes (its queue is full, or the run has used up its share) is evicted all the same. Default false. */
  offloadForceEvict?: boolean;
  /** Objects that may wait for one disk. Default 50,000. */
  offloadQueueLimit?: number;
  /** Share of that queue which one run of eviction may fill, 0 to 1. Default 0.5. */
  offloadCapRatio?: number;
  /** Objects that are on disks alone come back to memory when they are read often. Default false. */
  promotionOnHit?: boolean;
  /** Reads from which an object is promoted, 1 to 255. Default 2. */
  promotionThreshold?: number;
  /** Promotions that a client is told of at once. Default 1. */
  promotionsPerHeartbeat?: number;
  /** Promotions that may be under way. Default 50,000. */
  promotionQueueLimit?: number;
  /** After so long a scan ends with what it has done, in ms. Default 60,000. */
  scanDeadlineMs?: number;
  /** Milliseconds, never running backwards. Default `performance.now()`. */
  now?: () => number;
  /** Uniform in [0, 1), for placement. Default `Math.random`. */
  random?: () => number;
}

export type ResolvedOptions = Required<Omit<MetadataOptions, 'tenants' | 'maxTableBytes'>> &
  Pick<MetadataOptions, 'tenants' | 'maxTableBytes'>;

const DAY = 24 * 60 * 60_000;

function ratio(argument: string, value: unknown): number {
  if (typeof value !== 'number' || !(value > 0 && value <= 1)) {
    throw errors.invalidArgument(argument, value, 'a number above 0, at most 1');
  }
  return value;
}

/** The same, and 0. */
function share(argument: string, value: unknown): number {
  return value === 0 ? 0 : ratio(argument, value);
}

function callable<T>(argument: string, value: T): T {
  if (typeof value !== 'function') throw errors.invalidArgument(argument, value, 'a function');
  return value;
}

/** @throws ERR_INVALID_ARGUMENT naming the option */
export function resolveOptions(given: MetadataOptions | undefined): ResolvedOptions {
  const o = checkOptions('options', given);
  const milliseconds = (name: keyof MetadataOptions, value: number, min = 0) => integer(name, value, min, 365 * DAY);
  const alignment = integer('alignment', o.alignment ?? 64, 1, 2 ** 30);
  if (!Number.isInteger(Math.log2(alignment))) throw errors.invalidArgument('alignment', alignment, 'a power of two');
  const maxSoftPinTtlMs = milliseconds('maxSoftPinTtlMs', o.maxSoftPinTtlMs ?? DAY, 1);
  return {
    leaseTtlMs: milliseconds('leaseTtlMs', o.leaseTtlMs ?? 10_000),
    softPinTtlMs: integer('softPinTtlMs', o.softPinTtlMs ?? Math.min(30 * 60_000, maxSoftPinTtlMs), 1, maxSoftPinTtlMs),
    maxSoftPinTtlMs,
    allowEvictSoftPinned: boolean('allowEvictSoftPinned', o.allowEvictSoftPinned ?? true),
    evictionRatio: ratio('evictionRatio', o.evictionRatio ?? 0.05),
    evictionHighWatermark: ratio('evictionHighWatermark', o.evictionHighWatermark ?? 0.9),
    putDiscardMs: milliseconds('putDiscardMs', o.putDiscardMs ?? 30_000),
    putReleaseMs: milliseconds('putReleaseMs', o.putReleaseMs ?? 600_000, o.putDiscardMs ?? 30_000),
    allocationStrategy: oneOf('allocationStrategy', o.allocationStrategy ?? 'random', STRATEGIES),
    alignment,
    maxSegments: integer('maxSegments', o.maxSegments ?? 1024, 1, 32_768),
    tenants: o.tenants,
    shards: integer('shards', o.shards ?? 1, 1, 64),
    maxTableBytes: o.maxTableBytes,
    recentLosses: integer('recentLosses', o.recentLosses ?? 65_536, 1, 2 ** 26),
    offload: boolean('offload', o.offload ?? false),
    offloadOnEvict: boolean('offloadOnEvict', o.offloadOnEvict ?? false),
    offloadForceEvict: boolean('offloadForceEvict', o.offloadForceEvict ?? false),
    offloadQueueLimit: integer('offloadQueueLimit', o.offloadQueueLimit ?? 50_000, 1, 100_000_000),
    offloadCapRatio: share('offloadCapRatio', o.offloadCapRatio ?? 0.5),
    promotionOnHit: boolean('promotionOnHit', o.promotionOnHit ?? false),
    promotionThreshold: integer('promotionThreshold', o.promotionThreshold ?? 2, 1, 255),
    promotionsPerHeartbeat: integer('promotionsPerHeartbeat', o.promotionsPerHeartbeat ?? 1, 1, 100_000),
    promotionQueueLimit: integer('promotionQueueLimit', o.promotionQueueLimit ?? 50_000, 1, 100_000_000),
    scanDeadlineMs: milliseconds('scanDeadlineMs', o.scanDeadlineMs ?? 60_000, 1),
    now: callable('now', o.now ?? (() => performance.now())),
    random: callable('random', o.random ?? Math.random),
  };
}
