/** Between what the metadata service says of copies and what the wire says: addresses there, offsets here. */

import type { METHODS, replica, replicateConfig, segment } from '../../rpc/schemas/v0_3_13.js';
import { failure, success, type Value } from '../../rpc/types.js';
import type { ObjectInfo, Outcome, Replica, ReplicateConfig, SegmentInfo, Uuid } from '../api.js';

export type WireReplica = Value<typeof replica>;
export type WireConfig = Value<typeof replicateConfig>;
export type WireSegment = Value<typeof segment>;
export type WireFound = Value<(typeof METHODS)['GetReplicaList']['result']>;

/** Numbers of Mooncake's ReplicaStatus. */
const STATE = { processing: 2, complete: 3 } as const;
const SOFT_PIN = ['preserve', 'enable', 'disable'] as const;

/** First addresses of mounted segments, by id. */
export type Bases = ReadonlyMap<Uuid, number>;

export function toWire(bases: Bases, one: Replica): WireReplica {
  const address = BigInt((bases.get(one.segment) ?? 0) + one.offset);
  const buffer = { size: BigInt(one.size), address, protocol: one.protocol, endpoint: one.endpoint };
  return { id: BigInt(one.id), descriptor: { kind: 'memory', value: { buffer } }, state: STATE[one.state] };
}

export function startedToWire(bases: Bases, outcome: Outcome<Replica[]>) {
  return outcome.ok ? success(outcome.value.map((one) => toWire(bases, one))) : failure(outcome.status);
}

export function foundToWire(bases: Bases, outcome: Outcome<ObjectInfo>): WireFound {
  if (!outcome.ok) return failure(outcome.status);
  const { replicas, leaseMs, checksum } = outcome.value;
  return success({
    replicas: replicas.map((one) => toWire(bases, one)),
    leaseMs: BigInt(Math.ceil(leaseMs)),
    checksum,
  });
}

/**
 * What a put asks for. undefined where this cluster has nothing of the kind: copies on NVMe-oF or a distributed file system
 * alone.
 */
export function configFromWire(config: WireConfig): ReplicateConfig | undefined {
  if (config.replicas < 1n || config.replicas > 1024n) return undefined;
  const preferredSegments = config.preferredSegment
    ? [...config.preferredSegments, config.preferredSegment]
    : config.preferredSegments;
  return {
    replicas: Number(config.replicas),
    softPin: SOFT_PIN[config.softPin] ?? 'preserve',
    softPinTtlMs: config.softPinTtlMs === undefined ? undefined : Number(config.softPinTtlMs),
    hardPin: config.hardPin,
    preferredSegments,
    hostId: config.hostId,
    preferSameNode: config.preferSameNode,
    groups: config.groups?.length ? config.groups : undefined,
  };
}

export function segmentFromWire(one: WireSegment): SegmentInfo {
  const { id, name, base, size, endpoint, protocol, hostId } = one;
  // Numbers that are too large to be exact are refused as such by the service.
  return { id, name, base: Number(base), length: Number(size), endpoint: endpoint || name, protocol, hostId };
}

/** Sizes as the service takes them; what is no size there (0, above 2^53) becomes -600 for its key. */
export function sizesFromWire(sizes: readonly bigint[]): Float64Array {
  return Float64Array.from(sizes, (size) => (size <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(size) : 0));
}
