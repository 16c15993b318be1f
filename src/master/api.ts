/**
 * The metadata service's calls, as the store's client makes them: in its own process, over a transfer, or over
 * Mooncake's RPC. Batches first: a single call is a batch of one. Calls that can fail for one key and succeed for another
 * answer per key and never throw for what a cluster may meet; they throw for arguments that no caller should send.
 *
 * Meaning of the calls: docs/store.md, after Mooncake's master.
 */
import type { Keys } from '../core/keys.js';

/** A 128-bit id, 32 lower-case hex digits: Mooncake's pair of u64, first half first. */
export type Uuid = string;

/** `ok`, or one of Mooncake's negative codes (status.ts); -1701 from every call for a tenant that is not served. */
export type Status = number;

export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly status: Status; readonly why: string };

/** A range of memory that a client lends to the cluster. */
export interface SegmentInfo {
  id: Uuid;
  /** With the endpoint unique among the clients of a cluster; one client may give it to several segments. */
  name: string;
  /** First address, below 2^47, and bytes. */
  base: number;
  length: number;
  /** Address of the transfer through which its bytes are reached. */
  endpoint: string;
  /** `tcp`, `rdma`, `local`, … */
  protocol: string;
  /** Names the host, so that a writer's own host can be preferred. */
  hostId: string;
}

/** One copy of an object: where its bytes lie. */
export interface Replica {
  readonly id: number;
  readonly kind: 'memory';
  readonly state: 'processing' | 'complete';
  /** The segment's id, its name (by which its endpoint's transfer knows it) and its endpoint. */
  readonly segment: Uuid;
  readonly segmentName: string;
  readonly endpoint: string;
  readonly protocol: string;
  /** Bytes from the segment's base. */
  readonly offset: number;
  /** Bytes of the object. */
  readonly size: number;
}

/** The copy of an object in the files of a client, whose RPC service hands its bytes out. */
export interface DiskReplica {
  readonly id: number;
  readonly kind: 'disk';
  readonly client: Uuid;
  /** Address of that service. */
  readonly endpoint: string;
  /** Bytes of the object. */
  readonly size: number;
}

export interface ReplicateConfig {
  /** Copies wanted, on different segments; fewer is success as long as there is one. Default 1. */
  replicas?: number;
  /** Soft pin: `enable` it, `disable` it, or `preserve` what the object has (upsert). Default `preserve`. */
  softPin?: 'preserve' | 'enable' | 'disable';
  /** How long a soft pin lasts, from the first readable replica. Default 30 min, at most 24 h. */
  softPinTtlMs?: number;
  /** Never evicted; goes only by an explicit remove. Default false. */
  hardPin?: boolean;
  /** Segment names to try first, in order. */
  preferredSegments?: readonly string[];
  /** The writer's host; segments on it are tried before others when `preferSameNode` is set. */
  hostId?: string;
  preferSameNode?: boolean;
  /** A group for each key (or one for all): a lookup of one member protects all, eviction takes them together. */
  groups?: readonly string[] | string;
}

/** A readable object, protected for `leaseMs` from now: a reader that takes longer must treat its read as failed. */
export interface ObjectInfo {
  /** Copies in memory; none where the object is on a disk alone. */
  readonly replicas: readonly Replica[];
  readonly disk?: DiskReplica;
  readonly size: number;
  /** CRC-64 of the bytes; undefined where the writer gave none. */
  readonly checksum: bigint | undefined;
  readonly leaseMs: number;
}

/** Why a key was not served, for the counters. */
export type MissReason = 'absent' | 'evicted' | 'removed' | 'incomplete' | 'unknown-tenant';

export interface SegmentFigures extends SegmentInfo {
  client: Uuid;
  /** Nothing new is placed in it. */
  isLeaving: boolean;
  /** Whether its objects are being moved away, or have been. */
  drain: 'none' | 'draining' | 'drained';
  usedBytes: number;
  capacityBytes: number;
  /** Copies of objects, those being written included. */
  objects: number;
  /** Pieces of space that no object owns any more and that somebody may still be reading or writing. */
  keptBack: number;
}

export interface DiskStats {
  /** Clients that lend a disk. */
  disks: number;
  /** Copies of objects on disks, and the objects that have no other. */
  objects: number;
  objectsOnDiskAlone: number;
  usedBytes: number;
  /** What clients say that their disks may hold; those that do not say count nothing. */
  capacityBytes: number;
  /** Objects that clients are to write to their disks. */
  offloads: number;
  /** Promotions under way, and what became of reads and promotions so far. */
  promotions: number;
  promotionsAdmitted: number;
  promotionsCompleted: number;
  promotionsFailed: number;
  promotionsRefused: Readonly<Record<'frequency' | 'watermark' | 'cap', number>>;
}

export interface MetadataStats {
  /** Readable objects. */
  objects: number;
  /** Objects whose put has not ended. */
  incomplete: number;
  usedBytes: number;
  /** Part of it that no object owns any more, kept back until nobody can be reading or writing it. */
  keptBackBytes: number;
  capacityBytes: number;
  evictedObjects: number;
  evictedBytes: number;
  /** Times that eviction ran, and times that it found nothing that may go. */
  evictions: number;
  fruitlessEvictions: number;
  discardedPuts: number;
  /** Keys asked for by `exist` and `getReplicas`, and those of them that were there. */
  lookups: number;
  hits: number;
  misses: Readonly<Record<MissReason, number>>;
  /** Undefined where it is not told. */
  disks?: DiskStats;
  /** Bytes of the tables. */
  metadataBytes: number;
  tenants: Readonly<Record<string, { objects: number; usedBytes: number; quotaBytes: number | null }>>;
}

export interface Metadata {
  /** Reserves room for objects that do not exist: -705 exists, -200 no space, -600 bad size, -1700 over quota. */
  putStart(
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    config: ReplicateConfig,
    tenant: string,
  ): Outcome<Replica[]>[];
  /** Makes objects readable. Checksums key by key; undefined: none. -601 when another client started the put, -704. */
  putEnd(client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant: string): Status[];
  /** Takes a started put back, which says that no write of it is under way any more. -700: it has ended. */
  putRevoke(client: Uuid, keys: Keys, tenant: string): Status[];
  /**
   * As putStart, but an object that exists is replaced when the upsert ends; until then readers get the old one, or -703
   * where the new one takes its very space: with the same size, when no lease is active.
   */
  upsertStart(
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    config: ReplicateConfig,
    tenant: string,
  ): Outcome<Replica[]>[];
  upsertEnd(client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant: string): Status[];
  upsertRevoke(client: Uuid, keys: Keys, tenant: string): Status[];
  /** Where objects are, for reading: grants a lease and counts as use. -704 absent, -703 not ready; `why`: a MissReason. */
  getReplicas(keys: Keys, tenant: string): Outcome<ObjectInfo>[];
  /** 1 present, 0 absent, negative status: grants a lease of the weaker kind and does not count as use. */
  exist(keys: Keys, tenant: string): Int32Array;
  /** As getReplicas, but grants nothing and counts as nothing: for tools. */
  peek(keys: Keys, tenant: string): Outcome<ObjectInfo>[];
  /** -706 leased (unless forced), -704 absent. */
  remove(keys: Keys, force: boolean, tenant: string): Status[];
  mountSegment(segment: SegmentInfo, client: Uuid): Status;
  /** All copies in it are gone. Its memory may be mounted again: what may still be in use of it is kept back there. */
  unmountSegment(segment: Uuid, client: Uuid): Status;
  segments(): SegmentFigures[];
  stats(): MetadataStats;
}

/**
 * Long work: done in slices, so that nothing else waits for it; a deadline ends it with what was done so far. A tenant that
 * is not served throws ERR_UNKNOWN_TENANT.
 */
export interface LongMetadata {
  /**
   * Removes objects whose whole key the pattern is found in; how many. Throws ERR_INVALID_ARGUMENT for a bad pattern, and at a
   * key that is too long for it.
   */
  removeByRegex(pattern: string, force: boolean, tenant: string): Promise<number>;
  /** Removes every object of the tenant that no lease protects (all, when forced); how many. */
  removeAll(force: boolean, tenant: string): Promise<number>;
  /** Keys that the pattern is found in, with their replicas. */
  replicasByRegex(pattern: string, tenant: string): Promise<Map<string, readonly Replica[]>>;
  /** Every key of a tenant. */
  keys(tenant: string): Promise<string[]>;
}

type Promised<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Promise<R> : never;
};

/** What a store calls: the same, wherever the service is. */
export type MetadataClient = Promised<Metadata> & LongMetadata;
