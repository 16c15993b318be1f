/**
 * What a store gives to connectors and other callers that move many objects between registered memory and the cluster:
 * batches opened by key, moved piece by piece (layer by layer, if they like), and closed whole. `MooncakeStore` implements
 * it and adds calls for one object or a few (put, get, …).
 *
 * In a batch the objects lie in a space of their own: descriptors name segment `OBJECTS`, and byte `b` of object `i` has
 * offset `i * stride + b`. The other side of a descriptor is a segment of the store's transfer. A layout with one block
 * per object therefore describes objects, and `planTransfer` writes the descriptors.
 */
import type { Descriptors } from '../core/descriptors.js';
import type { Keys } from '../core/keys.js';
import type { ReplicateConfig, Status } from '../master/api.js';
import type { CallLimits, Transfer } from '../transfer/transfer.js';

/** The segment number of the objects in a batch's descriptors. */
export const OBJECTS = 0xffff_fffe;

export interface BatchOptions extends CallLimits {
  /** Bytes from one object to the next in descriptors; at least the largest object. */
  stride: number;
  tenant?: string;
}

export interface PutBatchOptions extends BatchOptions, ReplicateConfig {}

/** Why a get found nothing, for the counters; each is counted once per key. */
export type StoreMissReason =
  | 'absent'
  | 'evicted'
  | 'removed'
  | 'incomplete'
  | 'unknown-tenant'
  | 'size'
  | 'corrupt'
  | 'unverified'
  | 'lease-expired'
  | 'peer-lost'
  | 'timeout'
  | 'namespace';

/** Objects being written. */
export interface PutBatch {
  /** Per key: 0 open for writing; -705 it exists already, write nothing; another negative status: refused. */
  readonly statuses: Int32Array;
  /** Copies from segments of the transfer (source) to objects (destination). Pieces of one object may come in any order. */
  write(descriptors: Descriptors, limits?: CallLimits): Promise<void>;
  /**
   * Makes the objects visible whose every byte was written; the others are taken back. Statuses per key, 0 stored. Never
   * leaves a key half-written.
   */
  commit(): Promise<Int32Array>;
  /** Takes every open object back. */
  abort(): Promise<void>;
}

/** Objects being read; they are protected by a lease until `finish`, as long as the lease lasts. */
export interface GetBatch {
  /** Per key: 0 found, or a negative status: a miss, counted with its reason. */
  readonly statuses: Int32Array;
  /** Bytes of each object found, 0 elsewhere. */
  readonly sizes: Float64Array;
  /** Copies from objects (source) to segments of the transfer (destination). Descriptors of missed keys are passed over. */
  read(descriptors: Descriptors, limits?: CallLimits): Promise<void>;
  /**
   * Says which objects were read whole, unchanged and within their lease: 0, or a negative status; bytes of the others
   * must not be used. Only objects of which every byte was read can be verified against their checksum.
   */
  finish(): Promise<Int32Array>;
}

export interface ObjectStore {
  /** The transfer whose segments descriptors name. */
  readonly transfer: Transfer;
  /** Starts objects of these sizes (bytes; one for all, or one a key). */
  openPut(keys: Keys, sizes: number | Float64Array, options: PutBatchOptions): Promise<PutBatch>;
  openGet(keys: Keys, options: BatchOptions): Promise<GetBatch>;
  /** 1 present, 0 absent; protects what is present for one lease, and counts as no use. */
  batchIsExist(keys: Keys, options?: CallLimits & { tenant?: string }): Promise<Int32Array>;
  /** Removes objects; statuses per key. */
  batchRemove(keys: Keys, options?: CallLimits & { tenant?: string; force?: boolean }): Promise<Int32Array>;
  /** Removes objects whose keys the pattern is found in (RE2's syntax); how many. */
  removeByRegex(pattern: string, options?: { tenant?: string; force?: boolean }): Promise<number>;
  /** Counts a miss that the caller found (a namespace that does not fit, …). */
  countMiss(reason: StoreMissReason, keys: number): void;
}

export type { Status };
