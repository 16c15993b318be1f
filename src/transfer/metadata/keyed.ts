/**
 * Metadata in a store of keys and values that all engines reach, as stock engines write it: two keys an engine, `rpc_meta` for
 * where it answers handshakes and `ram` for its descriptor, which is put again whenever its buffers change.
 *
 *   mooncake/[cluster/]rpc_meta/<name> = {"ip_or_host_name":…,"rpc_port":…}     mooncake/[cluster/]ram/<name> = a descriptor
 *
 * The cluster is MC_METADATA_CLUSTER_ID. Which store it is, is a file of its own: http.ts, etcd.ts, redis.ts.
 */
import { errors } from '../../core/errors.js';
import type { Limits } from '../limits.js';
import type { Place } from '../tcp/address.js';
import type { Metadata } from './backend.js';
import { isObject, parseJson } from './json.js';
import { isHost } from './name.js';

/** Every call ends within a deadline of the store's own, and throws ERR_PEER where the store is away or refuses. */
export interface KeyStore {
  /** What people know it by, without secrets. */
  readonly name: string;
  /** Undefined: no such key. */
  get(key: string, limits: Limits): Promise<string | undefined>;
  put(key: string, value: string): Promise<void>;
  /** A key that is not there counts as deleted. */
  delete(key: string): Promise<void>;
}

/** The longest value that is taken from a store. */
export const MAX_VALUE_BYTES = 16 * 2 ** 20;

export class KeyedMetadata implements Metadata {
  readonly #store: KeyStore;
  readonly #prefix: string;

  constructor(store: KeyStore) {
    this.#store = store;
    const cluster = process.env.MC_METADATA_CLUSTER_ID;
    this.#prefix = cluster ? `mooncake/${cluster.replace(/\/$/, '')}` : 'mooncake';
  }

  async publish(name: string, place: Place, descriptor: string): Promise<void> {
    const endpoint = JSON.stringify({ ip_or_host_name: place.host, rpc_port: place.port });
    await this.#store.put(this.#placeKey(name), endpoint);
    await this.#store.put(this.#descriptorKey(name), descriptor);
  }

  /** Both are tried, also where the first fails: what stays behind would name an engine that is gone. */
  async withdraw(name: string): Promise<void> {
    const keys = [this.#descriptorKey(name), this.#placeKey(name)];
    const results = await Promise.allSettled(keys.map((key) => this.#store.delete(key)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  find(name: string, limits: Limits): Promise<string> {
    return this.#must(this.#descriptorKey(name), limits);
  }

  async place(name: string, limits: Limits): Promise<Place> {
    const json = parseJson('where an engine answers', await this.#must(this.#placeKey(name), limits));
    const { ip_or_host_name: host, rpc_port: port } = isObject(json) ? json : {};
    const isPort = typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535;
    if (typeof host !== 'string' || !isHost(host) || !isPort) {
      throw errors.protocol('metadata without host and port of an engine', json);
    }
    return { host, port };
  }

  #placeKey(name: string): string {
    return `${this.#prefix}/rpc_meta/${name}`;
  }

  #descriptorKey(name: string): string {
    return name.includes('/') ? `${this.#prefix}/${name}` : `${this.#prefix}/ram/${name}`;
  }

  async #must(key: string, limits: Limits): Promise<string> {
    const value = await this.#store.get(key, limits);
    if (value === undefined) throw errors.peer(this.#store.name, `has no ${key}`);
    return value;
  }
}
