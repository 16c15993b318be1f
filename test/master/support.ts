/** What the tests of the metadata service share: a service with a clock that the test turns, and calls for one key. */
import { Keys, type MetadataOptions, MetadataService, type ReplicateConfig, type SegmentInfo } from 'mooncake-ts';
import * as assert from 'uvu/assert';

export const uuid = (number: number) => number.toString(16).padStart(32, '0');
export const ALICE = uuid(0xa11ce);
export const BOB = uuid(0xb0b);

export function segment(number: number, length: number, more: Partial<SegmentInfo> = {}): SegmentInfo {
  const id = uuid(0x5e6000 + number);
  const base = number * 2 ** 32;
  return {
    id,
    name: `segment-${number}`,
    base,
    length,
    endpoint: 'local:test',
    protocol: 'local',
    hostId: '',
    ...more,
  };
}

/** A service whose time stands still until `clock.now` is set, with one segment of `length` bytes that Alice lends. */
export function start(length: number, options: MetadataOptions = {}) {
  const clock = { now: 1000 };
  const service = new MetadataService({
    now: () => clock.now,
    alignment: 1,
    leaseTtlMs: 100,
    evictionHighWatermark: 1,
    evictionRatio: 0.01,
    ...options,
  });
  assert.is(service.mountSegment(segment(1, length), ALICE), 0);
  return { service, clock, ...calls(service) };
}

/** Single-key forms of the calls; statuses as numbers. */
export function calls(service: MetadataService) {
  const keys = (...names: string[]) => Keys.from(names);
  const begin = (name: string, size: number, config: ReplicateConfig = {}, client = ALICE, tenant?: string) =>
    service.putStart(client, keys(name), Float64Array.of(size), config, tenant)[0];
  const beginUpsert = (name: string, size: number, config: ReplicateConfig = {}, client = ALICE, tenant?: string) =>
    service.upsertStart(client, keys(name), Float64Array.of(size), config, tenant)[0];
  const end = (name: string, client = ALICE, tenant?: string, checksum?: bigint) =>
    service.putEnd(client, keys(name), [checksum], tenant)[0];
  const status = (outcome: ReturnType<typeof begin>) => (outcome.ok ? 0 : outcome.status);
  return {
    keys,
    begin,
    beginUpsert,
    end,
    status,
    revoke: (name: string, client = ALICE, tenant?: string) => service.putRevoke(client, keys(name), tenant)[0],
    put(name: string, size: number, config: ReplicateConfig = {}, tenant?: string): number {
      const outcome = begin(name, size, config, ALICE, tenant);
      return outcome.ok ? end(name, ALICE, tenant) : outcome.status;
    },
    upsert(name: string, size: number, config: ReplicateConfig = {}): number {
      const outcome = beginUpsert(name, size, config);
      return outcome.ok ? service.upsertEnd(ALICE, keys(name), [undefined])[0] : outcome.status;
    },
    read: (name: string, tenant?: string) => service.getReplicas(keys(name), tenant)[0],
    has: (name: string, tenant?: string) => service.exist(keys(name), tenant)[0],
    /** Whether it is there, without protecting it. */
    peek: (name: string, tenant?: string) => service.peek(keys(name), tenant)[0].ok,
    place(name: string, tenant?: string) {
      const outcome = service.peek(keys(name), tenant)[0];
      return outcome.ok ? outcome.value.replicas.map(({ segment, offset, size }) => ({ segment, offset, size })) : [];
    },
    remove: (name: string, force = false, tenant?: string) => service.remove(keys(name), force, tenant)[0],
  };
}
