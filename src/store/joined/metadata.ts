/**
 * The metadata service of a cluster, by Mooncake's RPC. One key goes by a method for one key, as stock clients send it, more by
 * a method for many. What the wire has no call for is refused, or answered by the call that comes nearest.
 */
import { errors } from '../../core/errors.js';
import type { Keys } from '../../core/keys.js';
import type {
  MetadataClient,
  MetadataStats,
  ObjectInfo,
  Outcome,
  Replica,
  ReplicateConfig,
  SegmentFigures,
  SegmentInfo,
  Status,
  Uuid,
} from '../../master/api.js';
import { STATUS } from '../../master/status.js';
import type { Method } from '../../rpc/method.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { ExpectedValue } from '../../rpc/types.js';
import type { Limits } from '../../transfer/limits.js';
import { statusError } from '../status.js';
import type { Admin } from './admin.js';
import type { DiskReads } from './disk-reads.js';
import type { MasterLink } from './link.js';
import { ALL_REPLICAS, configToWire, found, peeked, segmentToWire, started, type WireFound } from './wire.js';

type Sums = readonly (bigint | undefined)[];

/** The status of an answer without a value. */
export const statusOf = (answer: ExpectedValue<undefined>): Status => (answer.ok ? STATUS.ok : answer.error);

export class RpcMetadata implements MetadataClient {
  readonly #link: MasterLink;
  readonly #limits: Limits;
  readonly #hostId: string;
  readonly #admin: Admin | undefined;
  readonly #disks: DiskReads;

  /** `hostId` of the writer, for puts that name none. `admin`: the master's HTTP, where it is known. */
  constructor(link: MasterLink, limits: Limits, hostId: string, admin: Admin | undefined, disks: DiskReads) {
    this.#link = link;
    this.#limits = limits;
    this.#hostId = hostId;
    this.#admin = admin;
    this.#disks = disks;
  }

  putStart(client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#start(METHODS.PutStart, METHODS.BatchPutStart, client, keys, sizes, config, tenant);
  }

  upsertStart(client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#start(METHODS.UpsertStart, METHODS.BatchUpsertStart, client, keys, sizes, config, tenant);
  }

  async #start(
    one: (typeof METHODS)['PutStart'],
    many: (typeof METHODS)['BatchPutStart'],
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    replicate: ReplicateConfig,
    tenant: string,
  ): Promise<Outcome<Replica[]>[]> {
    if (keys.length === 0) return [];
    const config = configToWire(replicate, keys.length, this.#hostId);
    if (keys.length === 1) {
      const size = BigInt(sizes[0]);
      return [started(await this.#call(one, { client, key: keys.at(0), size, config, tenant }), sizes[0])];
    }
    const wanted = Array.from(sizes, BigInt);
    const answers = await this.#call(many, { client, keys, sizes: wanted, config, tenant });
    return complete(answers, keys).map((answer, i) => started(answer, sizes[i]));
  }

  async putEnd(client: Uuid, keys: Keys, checksums: Sums, tenant: string): Promise<Status[]> {
    if (keys.length === 0) return [];
    const objects = objectEnds(keys, checksums);
    const replicaType = ALL_REPLICAS;
    if (keys.length === 1) {
      return [statusOf(await this.#call(METHODS.PutEnd, { client, object: objects[0], replicaType, tenant }))];
    }
    return statuses(await this.#call(METHODS.BatchPutEnd, { client, objects, replicaType, tenant }), keys);
  }

  async upsertEnd(client: Uuid, keys: Keys, checksums: Sums, tenant: string): Promise<Status[]> {
    if (keys.length === 0) return [];
    const objects = objectEnds(keys, checksums);
    if (keys.length === 1) {
      const args = { client, object: objects[0], replicaType: ALL_REPLICAS, tenant };
      return [statusOf(await this.#call(METHODS.UpsertEnd, args))];
    }
    return statuses(await this.#call(METHODS.BatchUpsertEnd, { client, objects, tenant }), keys);
  }

  async putRevoke(client: Uuid, keys: Keys, tenant: string): Promise<Status[]> {
    if (keys.length === 0) return [];
    const args = { client, keys, replicaType: ALL_REPLICAS, tenant };
    return statuses(await this.#call(METHODS.BatchPutRevoke, args), keys);
  }

  async upsertRevoke(client: Uuid, keys: Keys, tenant: string): Promise<Status[]> {
    if (keys.length === 0) return [];
    return statuses(await this.#call(METHODS.BatchUpsertRevoke, { client, keys, tenant }), keys);
  }

  async getReplicas(keys: Keys, tenant: string): Promise<Outcome<ObjectInfo>[]> {
    const answers = await this.#found(keys, tenant);
    return this.#disks.resolve(keys, tenant, answers, answers.map(found), this.#limits);
  }

  /** The wire knows no lookup without a lease: this one grants it. An object on disks alone has no copies here. */
  async peek(keys: Keys, tenant: string): Promise<Outcome<ObjectInfo>[]> {
    return (await this.#found(keys, tenant)).map(peeked);
  }

  async #found(keys: Keys, tenant: string): Promise<readonly WireFound[]> {
    if (keys.length === 0) return [];
    if (keys.length === 1) return [await this.#call(METHODS.GetReplicaList, { key: keys.at(0), tenant })];
    return complete(await this.#call(METHODS.BatchGetReplicaList, { keys, tenant }), keys);
  }

  async exist(keys: Keys, tenant: string): Promise<Int32Array> {
    if (keys.length === 0) return new Int32Array();
    if (keys.length === 1) {
      const answer = await this.#call(METHODS.ExistKey, { key: keys.at(0), tenant });
      return Int32Array.of(answer.ok ? Number(answer.value) : answer.error);
    }
    return complete(await this.#call(METHODS.BatchExistKey, { keys, tenant }), keys);
  }

  async remove(keys: Keys, force: boolean, tenant: string): Promise<Status[]> {
    if (keys.length === 0) return [];
    if (keys.length === 1) return [statusOf(await this.#call(METHODS.Remove, { key: keys.at(0), force, tenant }))];
    return statuses(await this.#call(METHODS.BatchRemove, { keys, force, tenant }), keys);
  }

  async removeByRegex(pattern: string, force: boolean, tenant: string): Promise<number> {
    return Number(value(await this.#call(METHODS.RemoveByRegex, { pattern, force, tenant }), 'pattern', pattern));
  }

  async removeAll(force: boolean, tenant: string): Promise<number> {
    const removed = Number(await this.#call(METHODS.RemoveAll, { force, tenant }));
    if (removed < 0) throw statusError(removed, '');
    return removed;
  }

  async replicasByRegex(pattern: string, tenant: string): Promise<Map<string, readonly Replica[]>> {
    const answer = await this.#call(METHODS.GetReplicaListByRegex, { pattern, tenant });
    const byKey = new Map<string, readonly Replica[]>();
    for (const [key, replicas] of value(answer, 'pattern', pattern)) {
      const outcome = found({ ok: true, value: { replicas, leaseMs: 0n, checksum: undefined } });
      if (outcome.ok) byKey.set(Buffer.from(key).toString(), outcome.value.replicas);
    }
    return byKey;
  }

  async keys(tenant: string): Promise<string[]> {
    return [...(await this.replicasByRegex('', tenant)).keys()];
  }

  async mountSegment(segment: SegmentInfo, client: Uuid): Promise<Status> {
    return statusOf(await this.#call(METHODS.MountSegment, { segment: segmentToWire(segment), client }));
  }

  async unmountSegment(segment: Uuid, client: Uuid): Promise<Status> {
    return statusOf(await this.#call(METHODS.UnmountSegment, { segment, client }));
  }

  async segments(): Promise<SegmentFigures[]> {
    return this.#http('segments').segments(this.#limits);
  }

  async stats(): Promise<MetadataStats> {
    return this.#http('stats').stats(this.#limits);
  }

  #http(call: string): Admin {
    if (this.#admin) return this.#admin;
    throw errors.notSupported(
      `${call} of a cluster`,
      "Mooncake's RPC has no such call: name the master's HTTP port (option `admin`; of a node: mooncake-ts store --admin " +
        'host:port); counters() says what this store did',
    );
  }

  #call<A, R>(method: Method<A, R>, args: A): Promise<R> {
    return this.#link.call(method, args, this.#limits);
  }
}

function objectEnds(keys: Keys, checksums: Sums) {
  return Array.from({ length: keys.length }, (_, i) => ({ key: keys.at(i), checksum: checksums[i] }));
}

/** An answer for each key, or none is believed. */
function complete<T extends { readonly length: number }>(answers: T, keys: Keys): T {
  if (answers.length === keys.length) return answers;
  throw errors.protocol(`${answers.length} answers to ${keys.length} keys`, answers.length);
}

const statuses = (answers: Int32Array, keys: Keys): Status[] => [...complete(answers, keys)];

/** @throws the status of a failure as the error that it is */
function value<T>(answer: ExpectedValue<T>, argument: string, given: string): T {
  if (answer.ok) return answer.value;
  if (answer.error === STATUS.invalidParams) throw errors.invalidArgument(argument, given, 'one that the master takes');
  throw statusError(answer.error, given);
}
