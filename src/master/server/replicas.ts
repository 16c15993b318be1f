/** Between what the metadata service says of copies and what the wire says: addresses there, offsets here. */

import type { METHODS, replica, replicateConfig, segment } from '../../rpc/schemas/v0_3_13.js';
import type { Value } from '../../rpc/types.js';
import type { DiskReplica, ObjectInfo, Replica, ReplicateConfig, SegmentInfo, Status, Uuid } from '../api.js';
import { STATUS } from '../status.js';

export type WireReplica = Value<typeof replica>;
export type WireConfig = Value<typeof replicateConfig>;
export type WireSegment = Value<typeof segment>;
export type WireFound = Value<(typeof METHODS)['GetReplicaList']['result']>;

/** Numbers of Mooncake's ReplicaStatus. */
export const STATE = { processing: 2, complete: 3 } as const;
const SOFT_PIN = ['preserve', 'enable', 'disable'] as const;

/** Mooncake's answer where no distributed file system is configured. */
const NO_DFS = -1601;

/** First addresses of mounted segments, by id. */
export type Bases = ReadonlyMap<Uuid, number>;

export function toWire(bases: Bases, one: Replica): WireReplica {
  const address = BigInt((bases.get(one.segment) ?? 0) + one.offset);
  const buffer = { size: BigInt(one.size), address, protocol: one.protocol, endpoint: one.endpoint };
  return { id: BigInt(one.id), descriptor: { kind: 'memory', value: { buffer } }, state: STATE[one.state] };
}

export function diskToWire({ id, client, endpoint, size }: DiskReplica): WireReplica {
  const value = { client, size: BigInt(size), endpoint };
  return { id: BigInt(id), descriptor: { kind: 'localDisk', value }, state: STATE.complete };
}

export function copiesToWire(bases: Bases, { replicas, disk }: Pick<ObjectInfo, 'replicas' | 'disk'>): WireReplica[] {
  const copies = replicas.map((one) => toWire(bases, one));
  return disk ? [...copies, diskToWire(disk)] : copies;
}

const MAX_COPIES = 1024n;

/**
 * What a put of so many keys asks for, or why it is refused: -600, or -1601 for copies on a distributed file system, which
 * this cluster does not have. A soft pin of 0 ms is none; a group without a name is none.
 */
export function configFromWire(config: WireConfig, keys: number): ReplicateConfig | Status {
  const { replicas, nofReplicas, dfsReplicas, softPinTtlMs, groups } = config;
  if (dfsReplicas > 0n) return NO_DFS;
  if (replicas < 1n || replicas > MAX_COPIES || nofReplicas > 0n) return STATUS.invalidParams;
  let softPin = SOFT_PIN[config.softPin];
  if (!softPin || (softPinTtlMs !== undefined && softPin !== 'enable')) return STATUS.invalidParams;
  if (softPinTtlMs === 0n) softPin = 'disable';
  if (groups && groups.length !== keys) return STATUS.invalidParams;
  const preferredSegments = config.preferredSegment
    ? [...config.preferredSegments, config.preferredSegment]
    : config.preferredSegments;
  return {
    replicas: Number(replicas),
    softPin,
    softPinTtlMs: softPinTtlMs ? Number(softPinTtlMs) : undefined,
    hardPin: config.hardPin,
    preferredSegments,
    hostId: config.hostId,
    preferSameNode: config.preferSameNode,
    groups,
  };
}

export function segmentFromWire(one: WireSegment): SegmentInfo {
  const { id, name, base, size, endpoint, protocol, hostId } = one;
  // Numbers that are too large to be exact are refused as such by the service.
  return { id, name, base: Number(base), length: Number(size), endpoint: endpoint || name, protocol, hostId };
}

const MOST = BigInt(Number.MAX_SAFE_INTEGER);

/** Sizes as the service takes them; one that no number is exact for is as hopeless as the largest that one is. */
export function sizesFromWire(sizes: readonly bigint[]): Float64Array {
  return Float64Array.from(sizes, (size) => Number(size < MOST ? size : MOST));
}
