/** The metadata service of this process, called as one elsewhere is. */
import type { Keys } from '../core/keys.js';
import type { LongMetadata, Metadata, MetadataClient, ReplicateConfig, SegmentInfo, Uuid } from '../master/api.js';

type Sums = readonly (bigint | undefined)[];

export class InProcess implements MetadataClient {
  readonly #service: Metadata & LongMetadata;

  constructor(service: Metadata & LongMetadata) {
    this.#service = service;
  }

  async putStart(client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#service.putStart(client, keys, sizes, config, tenant);
  }

  async putEnd(client: Uuid, keys: Keys, checksums: Sums, tenant: string) {
    return this.#service.putEnd(client, keys, checksums, tenant);
  }

  async putRevoke(client: Uuid, keys: Keys, tenant: string) {
    return this.#service.putRevoke(client, keys, tenant);
  }

  async upsertStart(client: Uuid, keys: Keys, sizes: Float64Array, config: ReplicateConfig, tenant: string) {
    return this.#service.upsertStart(client, keys, sizes, config, tenant);
  }

  async upsertEnd(client: Uuid, keys: Keys, checksums: Sums, tenant: string) {
    return this.#service.upsertEnd(client, keys, checksums, tenant);
  }

  async upsertRevoke(client: Uuid, keys: Keys, tenant: string) {
    return this.#service.upsertRevoke(client, keys, tenant);
  }

  async getReplicas(keys: Keys, tenant: string) {
    return this.#service.getReplicas(keys, tenant);
  }

  async exist(keys: Keys, tenant: string) {
    return this.#service.exist(keys, tenant);
  }

  async peek(keys: Keys, tenant: string) {
    return this.#service.peek(keys, tenant);
  }

  async remove(keys: Keys, force: boolean, tenant: string) {
    return this.#service.remove(keys, force, tenant);
  }

  async mountSegment(segment: SegmentInfo, client: Uuid) {
    return this.#service.mountSegment(segment, client);
  }

  async unmountSegment(segment: Uuid, client: Uuid) {
    return this.#service.unmountSegment(segment, client);
  }

  async segments() {
    return this.#service.segments();
  }

  async stats() {
    return this.#service.stats();
  }

  removeByRegex(pattern: string, force: boolean, tenant: string) {
    return this.#service.removeByRegex(pattern, force, tenant);
  }

  removeAll(force: boolean, tenant: string) {
    return this.#service.removeAll(force, tenant);
  }

  replicasByRegex(pattern: string, tenant: string) {
    return this.#service.replicasByRegex(pattern, tenant);
  }

  keys(tenant: string) {
    return this.#service.keys(tenant);
  }
}
