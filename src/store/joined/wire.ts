/**
 * Between what the store says and what Mooncake's wire says. The wire names a copy by its endpoint and its address there; it
 * knows no segment by id. So the `offset` of a replica that comes from it is an address, its segment's name the endpoint.
 */
import type { ObjectInfo, Outcome, Replica, ReplicateConfig, SegmentInfo } from '../../master/api.js';
import { STATUS } from '../../master/status.js';
import type { METHODS, replica, replicateConfig, segment } from '../../rpc/schemas/v0_3_13.js';
import type { ExpectedValue, Value } from '../../rpc/types.js';

type WireReplica = Value<typeof replica>;
export type WireFound = Value<(typeof METHODS)['GetReplicaList']['result']>;

/** Mooncake's ReplicaStatus: the copy is readable. */
const COMPLETE = 3;
/** Mooncake's ReplicaType: whatever the object has. */
export const ALL_REPLICAS = 4;
const SOFT_PIN = { preserve: 0, enable: 1, disable: 2 } as const;
/** Addresses beyond belong to no process. */
const HIGHEST = 2n ** 53n;

/** What a put of so many keys asks for. */
export function configToWire(config: ReplicateConfig, keys: number, hostId: string): Value<typeof replicateConfig> {
  const { groups, softPinTtlMs } = config;
  return {
    replicas: BigInt(config.replicas ?? 1),
    nofReplicas: 0n,
    dfsReplicas: 0n,
    softPin: SOFT_PIN[config.softPin ?? 'preserve'],
    softPinTtlMs: softPinTtlMs === undefined ? undefined : BigInt(softPinTtlMs),
    hardPin: config.hardPin ?? false,
    preferredSegments: [...(config.preferredSegments ?? [])],
    preferredSegment: '',
    preferredNofSegments: [],
    preferSameNode: config.preferSameNode ?? false,
    dataType: 0,
    hostId: config.hostId ?? hostId,
    groups: typeof groups === 'string' ? new Array(keys).fill(groups) : groups && [...groups],
  };
}

export function segmentToWire(one: SegmentInfo): Value<typeof segment> {
  const { id, name, base, length, endpoint, protocol, hostId } = one;
  return { id, name, base: BigInt(base), size: BigInt(length), endpoint, protocol, hostId };
}

/** The copies in memory, of those that an answer names. */
function replicasFromWire(replicas: readonly WireReplica[]): Replica[] {
  const memory: Replica[] = [];
  for (const { id, descriptor, state } of replicas) {
    if (descriptor.kind !== 'memory') continue;
    const { size, address, protocol, endpoint } = descriptor.value.buffer;
    if (address + size > HIGHEST) continue;
    memory.push({
      id: Number(id),
      kind: 'memory',
      state: state === COMPLETE ? 'complete' : 'processing',
      segment: '',
      segmentName: endpoint,
      endpoint,
      protocol,
      offset: Number(address),
      size: Number(size),
    });
  }
  return memory;
}

const refused = (status: number) => ({ ok: false, status, why: '' }) as const;

/** Where to write the copies of an object of `size` bytes: an answer that gives less room is as good as none. */
export function started(answer: ExpectedValue<readonly WireReplica[]>, size: number): Outcome<Replica[]> {
  if (!answer.ok) return refused(answer.error);
  const replicas = replicasFromWire(answer.value);
  const isUsable = replicas.length > 0 && replicas.every((one) => one.size === size);
  return isUsable ? { ok: true, value: replicas } : refused(STATUS.internal);
}

/** Where to read an object. One without a copy in memory is absent to whoever reads memory. */
export function found(answer: WireFound) {
  if (!answer.ok) return refused(answer.error);
  const replicas = replicasFromWire(answer.value.replicas);
  const size = replicas[0]?.size;
  if (size === undefined) return refused(STATUS.notFound);
  const { leaseMs, checksum } = answer.value;
  const same = replicas.filter((one) => one.size === size);
  return { ok: true, value: { replicas: same, size, checksum, leaseMs: Number(leaseMs) } } as const;
}

/** What is known of an object without reading it: also of one that is on disks alone. */
export function peeked(answer: WireFound): Outcome<ObjectInfo> {
  const inMemory = found(answer);
  if (inMemory.ok || !answer.ok) return inMemory;
  const { replicas, leaseMs, checksum } = answer.value;
  const onDisk = replicas.find(({ descriptor }) => descriptor.kind === 'localDisk')?.descriptor;
  if (onDisk?.kind !== 'localDisk') return inMemory;
  return { ok: true, value: { replicas: [], size: Number(onDisk.value.size), checksum, leaseMs: Number(leaseMs) } };
}
