/** The metadata service of another process, by requests over a transfer. Answers are checked before they are believed. */
import { errors, MooncakeError } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type {
  MetadataClient,
  MetadataStats,
  ObjectInfo,
  Outcome,
  Replica,
  ReplicateConfig,
  SegmentFigures,
  Status,
  Uuid,
} from '../master/api.js';
import type { CallLimits, Peer } from '../transfer/transfer.js';
import {
  configOf,
  i32,
  list,
  type Message,
  message,
  packed,
  packKeys,
  packSums,
  replicaReader,
  SERVICE,
  text,
  unpackInfos,
  unpackPlaces,
} from './wire.js';

export class RemoteMetadata implements MetadataClient {
  readonly #peer: Peer;
  readonly #client: Uuid;
  readonly #limits: CallLimits;
  readonly #lost: () => void;

  constructor(peer: Peer, client: Uuid, limits: CallLimits, lost: () => void) {
    this.#peer = peer;
    this.#client = client;
    this.#limits = limits;
    this.#lost = lost;
  }

  putStart(_client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#start('putStart', keys, sizes, config, tenant);
  }

  putEnd(_client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant: string) {
    return this.#statuses('putEnd', keys, tenant, packSums(checksums));
  }

  putRevoke(_client: Uuid, keys: Keys, tenant: string) {
    return this.#statuses('putRevoke', keys, tenant);
  }

  upsertStart(_client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#start('upsertStart', keys, sizes, config, tenant);
  }

  upsertEnd(_client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenant: string) {
    return this.#statuses('upsertEnd', keys, tenant, packSums(checksums));
  }

  upsertRevoke(_client: Uuid, keys: Keys, tenant: string) {
    return this.#statuses('upsertRevoke', keys, tenant);
  }

  getReplicas(keys: Keys, tenant: string): Promise<Outcome<ObjectInfo>[]> {
    return this.#infos('getReplicas', keys, tenant);
  }

  peek(keys: Keys, tenant: string): Promise<Outcome<ObjectInfo>[]> {
    return this.#infos('peek', keys, tenant);
  }

  async exist(keys: Keys, tenant: string): Promise<Int32Array> {
    return i32('statuses', await this.#ask('exist', { ...packKeys(keys), tenant }), keys.length);
  }

  remove(keys: Keys, force: boolean, tenant: string): Promise<Status[]> {
    return this.#statuses('remove', keys, tenant, { force });
  }

  async removeByRegex(pattern: string, force: boolean, tenant: string): Promise<number> {
    return count(await this.#ask('removeByRegex', { pattern, force, tenant }));
  }

  async removeAll(force: boolean, tenant: string): Promise<number> {
    return count(await this.#ask('removeAll', { force, tenant }));
  }

  async replicasByRegex(pattern: string, tenant: string): Promise<Map<string, readonly Replica[]>> {
    const answer = message('the answer', await this.#ask('replicasByRegex', { pattern, tenant }));
    const replicas = replicaReader(answer.segments);
    return new Map(
      list('found', answer.found).map((entry) => {
        const [key, rows] = list('found', entry);
        return [text('key', key), replicas(rows)];
      }),
    );
  }

  async keys(tenant: string): Promise<string[]> {
    return list('keys', await this.#ask('keys', { tenant })).map((key) => text('key', key));
  }

  async stats(): Promise<MetadataStats> {
    return message('stats', await this.#ask('stats', {})) as unknown as MetadataStats;
  }

  async segments(): Promise<SegmentFigures[]> {
    const segments = list('segments', await this.#ask('segments', {}));
    return segments.map((segment) => message('a segment', segment) as unknown as SegmentFigures);
  }

  /** Asks the owner to look at objects that came out corrupt here. */
  async suspect(keys: Keys, tenant: string): Promise<void> {
    await this.#ask('suspect', { ...packKeys(keys), tenant });
  }

  mountSegment(): Promise<Status> {
    return Promise.reject(lending('mountSegment'));
  }

  unmountSegment(): Promise<Status> {
    return Promise.reject(lending('unmountSegment'));
  }

  async #ask(call: string, fields: Message): Promise<unknown> {
    try {
      return await this.#peer.call(SERVICE, { call, client: this.#client, ...fields }, this.#limits);
    } catch (error) {
      if (error instanceof MooncakeError && error.code === 'ERR_NOT_OWNER') this.#lost();
      throw error;
    }
  }

  async #start(call: string, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    const fields = { ...packKeys(keys), sizes: packed(sizes), config: configOf(config), tenant };
    return unpackPlaces(message('the answer', await this.#ask(call, fields)), sizes);
  }

  async #statuses(call: string, keys: Keys, tenant: string, fields: Message = {}): Promise<Status[]> {
    const answer = await this.#ask(call, { ...packKeys(keys), tenant, ...fields });
    return [...i32('statuses', answer, keys.length)];
  }

  async #infos(call: string, keys: Keys, tenant: string): Promise<Outcome<ObjectInfo>[]> {
    return unpackInfos(message('the answer', await this.#ask(call, { ...packKeys(keys), tenant })), keys.length);
  }
}

function count(answer: unknown): number {
  if (!Number.isSafeInteger(answer)) throw errors.protocol('a count is none', answer);
  return answer as number;
}

function lending(call: string) {
  return errors.notSupported(`${call} through an attached store`, 'an attached store lends no memory');
}
