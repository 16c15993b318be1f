/**
 * The calls that both masters get, in order, and what is kept of each answer: all but what is random by nature (ids of copies,
 * addresses, which segment). A step's answer is a value, or the number of an error.
 */
import { METHODS, type MethodName, type RpcClient } from 'mooncake-ts/rpc';
import { replicateConfig } from '../support/replicate-config.js';
import { copySteps, taskSteps } from './master-task-steps.js';

export type Answers = Record<string, unknown>;
export type Arguments = Record<string, unknown>;

const MiB = 2 ** 20;
export const TENANT = 'default';
export const id = (n: number) => n.toString(16).padStart(32, '0');
export const [A, B, STRANGER] = [id(0xa), id(0xb), id(0xc)];
export const [SEGMENT_A, SEGMENT_B, NO_SEGMENT] = [id(0x51), id(0x52), id(0x5f)];
const ODD = 'host/é\u0000 "\n%';
export const bytes = (key: string | Uint8Array) => (typeof key === 'string' ? Buffer.from(key) : key);
export const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export function pack(keys: readonly (string | Uint8Array)[]) {
  const parts = keys.map(bytes);
  const offsets = new Uint32Array(parts.length + 1);
  for (const [i, part] of parts.entries()) offsets[i + 1] = offsets[i] + part.length;
  return { bytes: Buffer.concat(parts), offsets };
}

export const segment = (id: string, name: string, base: bigint, size: bigint, more: Arguments = {}) => ({
  id,
  name,
  base,
  size,
  endpoint: name,
  protocol: 'tcp',
  hostId: '',
  ...more,
});

/** What is left of a value when what is random is taken away. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Int32Array) return [...value];
  if (value instanceof Uint8Array) return Buffer.from(value).toString();
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) {
    return Object.fromEntries([...value].map(([k, v]) => [String(plain(k)), plain(v)]).sort());
  }
  if (typeof value !== 'object' || value === null) return value ?? null;
  const one = value as Arguments;
  if ('ok' in one) return one.ok ? { ok: plain(one.value) } : one.error;
  if ('offsets' in one) {
    const { bytes, offsets } = one as unknown as ReturnType<typeof pack>;
    return Array.from({ length: offsets.length - 1 }, (_, i) => plain(bytes.subarray(offsets[i], offsets[i + 1])));
  }
  if ('descriptor' in one) {
    const { kind, value: where } = one.descriptor as { kind: string; value: { buffer: Arguments } };
    return `${kind} ${where.buffer.size} ${where.buffer.protocol} state ${one.state}`;
  }
  return Object.fromEntries(Object.entries(one).map(([k, v]) => [k, plain(v)]));
}

/** What steps are made of: a call, and the calls about objects; `step` names it in the answers. */
export interface Steps {
  readonly answers: Answers;
  readonly leaseMs: number;
  call(step: string, name: MethodName, args?: Arguments): Promise<unknown>;
  put(key: string, size?: bigint, more?: Arguments): Promise<void>;
  putStart(step: string, key: string, size: bigint, more?: Arguments, name?: string, client?: string): Promise<unknown>;
  revoke(step: string, key: string, client?: string, name?: string): Promise<unknown>;
  get(step: string, key: string): Promise<unknown>;
  exist(step: string, key: string): Promise<unknown>;
  remove(step: string, key: string, force?: boolean): Promise<unknown>;
}

/** Runs the script; answers by step. `leaseMs`: the master's. */
export async function script(client: RpcClient, leaseMs: number): Promise<Answers> {
  const answers: Answers = {};
  const call = async (step: string, name: MethodName, args: Arguments = {}) => {
    let answer: unknown;
    try {
      answer = plain(await client.call(METHODS[name] as never, args as never));
    } catch (error) {
      answer = String((error as { code: string }).code);
    }
    const label = `${name}: ${step}`;
    if (label in answers) throw new Error(`two steps ${label}`);
    answers[label] = answer;
    return answer;
  };
  const putStart = (
    step: string,
    key: string | Uint8Array,
    size: bigint,
    more: Arguments = {},
    name = 'PutStart',
    client = A,
  ) => call(step, name as MethodName, { client, key: bytes(key), size, config: replicateConfig(more), tenant: TENANT });
  const putEnd = (step: string, key: string, client = A, name = 'PutEnd') =>
    call(step, name as MethodName, {
      client,
      object: { key: bytes(key), checksum: undefined },
      replicaType: 4,
      tenant: TENANT,
    });
  const revoke = (step: string, key: string, client = A, name = 'PutRevoke') =>
    call(step, name as MethodName, { client, key: bytes(key), replicaType: 4, tenant: TENANT });
  const get = (step: string, key: string | Uint8Array) =>
    call(step, 'GetReplicaList', { key: bytes(key), tenant: TENANT });
  const exist = (step: string, key: string | Uint8Array) => call(step, 'ExistKey', { key: bytes(key), tenant: TENANT });
  const remove = (step: string, key: string | Uint8Array, force = false) =>
    call(step, 'Remove', { key: bytes(key), force, tenant: TENANT });
  const put = async (key: string, size = 1024n, more: Arguments = {}) => {
    await putStart(`${key} is put`, key, size, more);
    await putEnd(`${key} is put`, key);
  };

  await cluster();
  await mounting();
  await puts();
  await upserts();
  await reading();
  await batches();
  await removing();
  await groupsAndPins();
  const steps: Steps = { answers, leaseMs, call, put, putStart, revoke, get, exist, remove };
  await copySteps(steps);
  await taskSteps(steps);
  await unmounting();
  await absentFeatures();
  return answers;

  async function cluster() {
    await call('version', 'ServiceReady');
    await call('plain', 'GetFsdir');
    await call('plain', 'GetStorageConfig');
    await call('unknown client', 'Ping', { client: A });
    await putStart('no segment', 'early', 10n);
    await exist('no segment', 'early');
    await call('nothing', 'RemoveAll', { force: true, tenant: TENANT });
  }

  async function mounting() {
    const a = segment(SEGMENT_A, 'host-a:1', 0x7000_0000_0000n, BigInt(64 * MiB));
    const mount = (step: string, more: Arguments, client = A) =>
      call(step, 'MountSegment', { segment: { ...a, ...more }, client });
    const odd = async (step: string, more: Arguments) => {
      await mount(step, { id: id(0x61), ...more });
      await call(step, 'UnmountSegment', { segment: id(0x61), client: A });
    };
    await odd('size 0', { size: 0n });
    await odd('base 0', { base: 0n });
    await odd('size 2^63', { size: 1n << 63n });
    await odd('base 2^63', { base: 1n << 63n });
    await odd('no name', { name: '', endpoint: '' });
    await odd('odd name', { name: ODD, endpoint: ODD });
    await odd('another protocol', { protocol: 'rdma' });
    await mount('first', {});
    await mount('again', {});
    await mount('again, of another client', {}, B);
    await call('by name', 'QuerySegmentStatus', { name: 'host-a:1' });
    await call('unknown name', 'QuerySegmentStatus', { name: 'nobody:1' });
    await call('by id', 'QuerySegmentStatusById', { segment: SEGMENT_A });
    await call('unknown id', 'QuerySegmentStatusById', { segment: NO_SEGMENT });
    await call('zero id', 'QuerySegmentStatusById', { segment: id(0) });
    await mount('zero id', { id: id(0), name: 'zero:1', base: 0x6000_0000_0000n });
    await call('zero id', 'UnmountSegment', { segment: id(0), client: A });
    await mount('zero client', { id: id(0x62), name: 'zero:2', base: 0x6000_0000_0000n }, id(0));
    await call('zero client', 'UnmountSegment', { segment: id(0x62), client: id(0) });
    await mount('overlapping, of one client', { id: id(0x63), name: 'host-a:2' });
    await call('overlapping', 'UnmountSegment', { segment: id(0x63), client: A });
    await mount('same name, of one client', { id: id(0x64), base: 0x6000_0000_0000n });
    await call('same name', 'UnmountSegment', { segment: id(0x64), client: A });
    await mount('same name, other endpoint, other client', { id: id(0x65), endpoint: 'other:1' }, B);
    await call('same name, other endpoint', 'UnmountSegment', { segment: id(0x65), client: B });
    await call('mounted, not remounted', 'Ping', { client: A });
    await call('what is mounted', 'ReMountSegment', { segments: [a], client: A });
    await call('again', 'ReMountSegment', { segments: [a], client: A });
    await call('remounted', 'Ping', { client: A });
    await call('nothing', 'ReMountSegment', { segments: [], client: STRANGER });
    await call('remounted nothing', 'Ping', { client: STRANGER });
    await call('both', 'BatchQueryIp', { clients: [A, STRANGER] });
    await call('none', 'BatchQueryIp', { clients: [] });
  }

  async function puts() {
    // Pinned: what does not fit makes the stock master evict at once.
    await putStart('first', 'k', 1000n, { hardPin: true });
    await exist('being written', 'k');
    await get('being written', 'k');
    await remove('being written', 'k');
    await putStart('twice by one client', 'k', 1000n);
    await putStart('by another client meanwhile', 'k', 1000n, {}, 'PutStart', STRANGER);
    await putEnd('another client', 'k', STRANGER);
    await revoke('another client', 'k', STRANGER);
    await putEnd('first', 'k');
    await putEnd('again', 'k');
    await putEnd('another client, after the end', 'k', STRANGER);
    await putEnd('no such key', 'none');
    await putStart('for a wrong type', 'typed', 10n);
    const typed = (step: string, replicaType: number) =>
      call(step, 'PutEnd', { client: A, object: { key: bytes('typed'), checksum: 5n }, replicaType, tenant: TENANT });
    await typed('type disk', 1);
    await typed('type 77', 77);
    await exist('after ends of wrong types', 'typed');
    await typed('type memory', 0);
    await typed('type disk, after the end', 1);
    await exist('after the end of memory', 'typed');
    await revoke('after the end', 'k');
    await revoke('no such key', 'none');
    await putStart('exists', 'k', 1000n);
    await putStart('exists, another size', 'k', 5n);
    await putStart('size 0', 'n1', 0n);
    await putStart('size 2^63', 'n2', 1n << 63n);
    await putStart('size 2^53', 'n3', 1n << 53n);
    await putStart('larger than the segment', 'n4', BigInt(65 * MiB));
    await putStart('empty key', '', 10n);
    await putStart('no copies', 'n5', 10n, { replicas: 0n });
    await putStart('2^32 copies', 'n6', 10n, { replicas: 1n << 32n });
    await putStart('NoF copies', 'n7', 10n, { replicas: 0n, nofReplicas: 1n });
    await putStart('memory and NoF copies', 'n8', 10n, { nofReplicas: 1n });
    await putStart('DFS copies', 'n9', 10n, { dfsReplicas: 1n });
    await putStart('two copies, one segment', 'two', 10n, { replicas: 2n });
    await revoke('two copies', 'two');
    await putStart('soft pin 7', 'n10', 10n, { softPin: 7 });
    await putStart('data type 99', 'dt', 10n, { dataType: 99 });
    await revoke('data type 99', 'dt');
    await putStart('preferred, unknown', 'pref', 10n, { preferredSegments: ['nobody:1'], preferredSegment: 'x' });
    await revoke('preferred, unknown', 'pref');
    await putStart('client of zeros', 'zero', 10n, {}, 'PutStart', id(0));
    await putEnd('client of zeros', 'zero', id(0));
    await putStart('client never seen', 'unseen', 10n, {}, 'PutStart', STRANGER);
    await revoke('client never seen', 'unseen', STRANGER);
    await exist('revoked', 'unseen');
  }

  async function upserts() {
    await putStart('new', 'u', 1000n, { hardPin: true }, 'UpsertStart');
    await putStart('while it is written', 'u', 1000n, {}, 'UpsertStart', STRANGER);
    await putEnd('preempted', 'u', A, 'UpsertEnd');
    await putEnd('new', 'u', STRANGER, 'UpsertEnd');
    await get('upserted', 'u');
    await wait(leaseMs * 1.5);
    await putStart('same size', 'u', 1000n, {}, 'UpsertStart');
    await get('in place', 'u');
    await exist('in place', 'u');
    await putEnd('same size', 'u', A, 'UpsertEnd');
    await get('after', 'u');
    await putStart('another size, leased', 'u', 2000n, {}, 'UpsertStart');
    await get('while another size is written', 'u');
    await putEnd('another size', 'u', A, 'UpsertEnd');
    await get('another size', 'u');
    await putStart('another size, revoked', 'u', 3000n, {}, 'UpsertStart');
    await revoke('another size', 'u', A, 'UpsertRevoke');
    await get('after a revoke', 'u');
    await revoke('of nothing', 'nope', A, 'UpsertRevoke');
    await putEnd('of nothing', 'nope', A, 'UpsertEnd');
    await putStart('size 0', 'u', 0n, {}, 'UpsertStart');
    await putStart('empty key', '', 10n, {}, 'UpsertStart');
    await call('two', 'BatchUpsertStart', {
      client: A,
      keys: pack(['bu1', 'bu2']),
      sizes: [10n, 20n],
      config: replicateConfig(),
      tenant: TENANT,
    });
    await call('one, and one that is not there', 'BatchUpsertEnd', {
      client: A,
      objects: ['bu1', 'nope'].map((key) => ({ key: bytes(key), checksum: 7n })),
      tenant: TENANT,
    });
    await call('one, one that ended, one that is not there', 'BatchUpsertRevoke', {
      client: A,
      keys: pack(['bu2', 'bu1', 'nope']),
      tenant: TENANT,
    });
  }

  async function reading() {
    await exist('absent', 'absent');
    await exist('present', 'k');
    await get('absent', 'absent');
    await get('present', 'k');
    await exist('empty key', '');
    await get('empty key', '');
    await call('empty name', 'GetReplicaList', { key: bytes('k'), tenant: '' });
    await call('another tenant', 'GetReplicaList', { key: bytes('k'), tenant: 'other' });
    await call('another tenant', 'ExistKey', { key: bytes('k'), tenant: 'other' });
    await call('some', 'BatchExistKey', { keys: pack(['k', 'absent', '', 'u']), tenant: TENANT });
    await call('none', 'BatchExistKey', { keys: pack([]), tenant: TENANT });
    await call('some', 'BatchGetReplicaList', { keys: pack(['k', 'absent', '']), tenant: TENANT });
    await call('none', 'BatchGetReplicaList', { keys: pack([]), tenant: TENANT });
    await call('all', 'GetReplicaListByRegex', { pattern: '^(k|u)$', tenant: TENANT });
    await call('none', 'GetReplicaListByRegex', { pattern: 'absent', tenant: TENANT });
    await call('bad', 'GetReplicaListByRegex', { pattern: '(', tenant: TENANT });
    await call('empty', 'GetReplicaListByRegex', { pattern: '^$', tenant: TENANT });
    await call('look-ahead', 'GetReplicaListByRegex', { pattern: 'k(?=x)', tenant: TENANT });
    await exist('of 65,535 bytes', 'x'.repeat(65_535));
    await exist('of bytes that are no text', Uint8Array.of(255, 0, 128));
  }

  async function batches() {
    const start = (step: string, keys: string[], sizes: bigint[], more: Arguments = {}) =>
      call(step, 'BatchPutStart', {
        client: A,
        keys: pack(keys),
        sizes,
        config: replicateConfig(more),
        tenant: TENANT,
      });
    await start('two and one that exists', ['b1', 'b2', 'k'], [10n, 20n, 30n]);
    await start('sizes not one a key', ['b3', 'b4'], [10n]);
    await start('one of size 0, one without a key', ['b5', 'b6', ''], [0n, 10n, 10n]);
    await start('one key twice', ['b7', 'b7'], [10n, 10n]);
    await start('none', [], []);
    await start('no copies', ['b8'], [10n], { replicas: 0n });
    const object = (key: string) => ({ key: bytes(key), checksum: undefined });
    await call('one, and one that is not there', 'BatchPutEnd', {
      client: A,
      objects: [object('b1'), object('none'), object('')],
      replicaType: 4,
      tenant: TENANT,
    });
    await call('none', 'BatchPutEnd', { client: A, objects: [], replicaType: 4, tenant: TENANT });
    await call('one, one that ended, one that is not there', 'BatchPutRevoke', {
      client: A,
      keys: pack(['b2', 'b1', 'none']),
      replicaType: 4,
      tenant: TENANT,
    });
    await call('another client', 'BatchPutRevoke', {
      client: STRANGER,
      keys: pack(['b6']),
      replicaType: 4,
      tenant: TENANT,
    });
    await call('rest', 'BatchPutRevoke', { client: A, keys: pack(['b6', 'b7']), replicaType: 4, tenant: TENANT });
  }

  async function removing() {
    await put('r1');
    await exist('protects', 'r1');
    await remove('leased by ExistKey', 'r1');
    await wait(leaseMs * 1.5);
    await get('protects', 'r1');
    await remove('leased by GetReplicaList', 'r1');
    await call('leased', 'BatchRemove', { keys: pack(['r1', 'absent', '']), force: false, tenant: TENANT });
    await call('leased', 'RemoveByRegex', { pattern: '^r1$', force: false, tenant: TENANT });
    await remove('forced', 'r1', true);
    await remove('absent', 'r1');
    await remove('empty key', '');
    await put('r2');
    await put('r3');
    await put('r4');
    await remove('not leased', 'r2');
    await call('found within', 'RemoveByRegex', { pattern: '3', force: false, tenant: TENANT });
    await exist('removed by its pattern', 'r3');
    await call('bad', 'RemoveByRegex', { pattern: '[', force: false, tenant: TENANT });
    await call('absent', 'RemoveByRegex', { pattern: 'absent', force: true, tenant: TENANT });
    await call('other tenant', 'RemoveAll', { force: true, tenant: 'other' });
    await putStart('open', 'r5', 10n);
    await remove('being written, forced', 'r5', true);
    await exist('after a forced removal while it was written', 'r5');
    await wait(leaseMs * 1.5);
    await call('all', 'RemoveAll', { force: true, tenant: TENANT });
    await exist('after all went', 'r4');
    await exist('pinned, after all went', 'k');
    await remove('pinned, after all went', 'k', true);
  }

  async function groupsAndPins() {
    const grouped = async (step: string, groups: string[]) => {
      await putStart(`groups, ${step}`, `g ${step}`, 10n, { groups });
      await revoke(`groups, ${step}`, `g ${step}`);
    };
    await grouped('none', []);
    await grouped('one', ['g']);
    await grouped('an empty one', ['']);
    await grouped('two for one key', ['g', 'h']);
    const batch = async (step: string, groups: string[]) => {
      const keys = pack([`bg ${step} 1`, `bg ${step} 2`]);
      const sizes = [10n, 10n];
      await call(`groups, ${step}`, 'BatchPutStart', {
        client: A,
        keys,
        sizes,
        config: replicateConfig({ groups }),
        tenant: TENANT,
      });
      await call(`groups, ${step}`, 'BatchPutRevoke', { client: A, keys, replicaType: 4, tenant: TENANT });
    };
    await batch('none', []);
    await batch('one for two', ['g']);
    await batch('one each', ['g', 'h']);
    await batch('one of them empty', ['g', '']);
    await batch('three for two', ['g', 'h', 'i']);
    const pinned = async (step: string, more: Arguments) => {
      await putStart(step, `pin ${step}`, 10n, more);
      await revoke(step, `pin ${step}`);
    };
    await pinned('soft pin', { softPin: 1 });
    await pinned('soft pin of a second', { softPin: 1, softPinTtlMs: 1000n });
    await pinned('soft pin of 0', { softPin: 1, softPinTtlMs: 0n });
    await pinned('soft pin of a day', { softPin: 1, softPinTtlMs: 86_400_000n });
    await pinned('soft pin above a day', { softPin: 1, softPinTtlMs: 86_400_001n });
    await pinned('soft pin of 2^63', { softPin: 1, softPinTtlMs: 1n << 63n });
    await pinned('no soft pin, of a second', { softPinTtlMs: 1000n });
    await pinned('no soft pin, above a day', { softPinTtlMs: 86_400_001n });
    await pinned('soft pin disabled', { softPin: 2 });
    await pinned('soft pin disabled, of a second', { softPin: 2, softPinTtlMs: 1000n });
    await pinned('hard pin', { hardPin: true });
    await pinned('hard pin and soft pin', { hardPin: true, softPin: 1 });
    await put('pinned', 10n, { hardPin: true });
    await remove('hard-pinned', 'pinned');
    await put('g1', 10n, { groups: ['g'] });
    await put('g2', 10n, { groups: ['g'] });
    await exist('of a group', 'g1');
    await remove('another of the group', 'g2');
    await putStart('another group', 'g1', 10n, { groups: ['other'] }, 'UpsertStart');
    await revoke('another group', 'g1', A, 'UpsertRevoke');
  }

  async function unmounting() {
    await wait(leaseMs * 1.5);
    await put('c1');
    await put('c2');
    await call('the segment of both', 'BatchReplicaClear', {
      keys: pack(['c1', 'none']),
      client: A,
      segment: 'host-a:1',
    });
    await exist('cleared', 'c1');
    await wait(leaseMs * 1.5);
    await call('another client', 'BatchReplicaClear', { keys: pack(['c2']), client: STRANGER, segment: '' });
    await call('all segments', 'BatchReplicaClear', { keys: pack(['c2']), client: A, segment: '' });
    await exist('cleared everywhere', 'c2');
    await put('c3');
    await call('unknown segment', 'BatchReplicaClear', { keys: pack(['c3']), client: A, segment: 'nobody:1' });
    await get('of what is to be cleared', 'c3');
    await call('leased', 'BatchReplicaClear', { keys: pack(['c3']), client: A, segment: '' });
    await call('no keys', 'BatchReplicaClear', { keys: pack([]), client: A, segment: '' });

    const b = segment(SEGMENT_B, 'host-b:1', 0x7100_0000_0000n, BigInt(16 * MiB));
    await call('of a second client', 'MountSegment', { segment: b, client: B });
    await putStart('two copies, two segments', 'two more', 10n, { replicas: 2n });
    await revoke('two more', 'two more');
    await putStart('preferred', 'at b', 10n, { preferredSegment: 'host-b:1' });
    await putEnd('preferred', 'at b');
    await call('of another client', 'GracefulUnmountSegment', { segment: SEGMENT_B, client: A, graceMs: 500n });
    await call('of another client', 'UnmountSegment', { segment: SEGMENT_B, client: A });
    await exist('after an unmount by another', 'at b');
    await call('again, of the second', 'MountSegment', { segment: b, client: B });
    await putStart('preferred again', 'at b', 10n, { preferredSegment: 'host-b:1' });
    await putEnd('preferred again', 'at b');
    await call('unknown', 'GracefulUnmountSegment', { segment: NO_SEGMENT, client: A, graceMs: 500n });
    await call('known', 'GracefulUnmountSegment', { segment: SEGMENT_B, client: B, graceMs: 500n });
    await call('again', 'GracefulUnmountSegment', { segment: SEGMENT_B, client: B, graceMs: 500n });
    await call('leaving', 'QuerySegmentStatusById', { segment: SEGMENT_B });
    await get('on a segment that leaves', 'at b');
    await putStart('two copies, one segment leaves', 'one', 10n, { replicas: 2n });
    await revoke('one segment leaves', 'one');
    await call('while it leaves', 'MountSegment', { segment: b, client: B });
    await wait(2500);
    await exist('after the grace', 'at b');
    await call('gone', 'QuerySegmentStatusById', { segment: SEGMENT_B });
    await call('unknown', 'UnmountSegment', { segment: NO_SEGMENT, client: A });
    await call('with objects', 'UnmountSegment', { segment: SEGMENT_A, client: A });
    await call('a second time', 'UnmountSegment', { segment: SEGMENT_A, client: A });
    await exist('unmounted', 'c3');
    await putStart('nothing mounted', 'late', 10n);
  }

  async function absentFeatures() {
    const key = bytes('k');
    const common = { client: A, key, tenant: TENANT };
    const nof = { id: SEGMENT_A, name: 'nof', base: 1n, size: 1n, endpoint: 'e' };
    await call('plain', 'MountNoFSegment', { segment: nof, client: A });
    await call('plain', 'ReMountNoFSegment', { segments: [nof], client: A });
    await call('plain', 'UnmountNoFSegment', { segment: SEGMENT_A, client: A });
    await call('plain', 'GetAllNoFSegments');
    await call('plain', 'GetNoFSegmentsByName', { name: 'nof' });
    await call('plain', 'MountLocalDiskSegment', { client: A, offload: true });
    await call('plain', 'UnmountLocalDiskSegment', { client: A });
    await call('plain', 'OffloadObjectHeartbeat', { client: A, offload: true });
    await call('plain', 'ReportSsdCapacity', { client: A, bytes: 1n });
    await call('nothing', 'NotifyOffloadSuccess', { client: A, objects: [], entries: [] });
    await call('one', 'NotifyOffloadSuccess', {
      client: A,
      objects: [{ tenant: TENANT, key: bytes('offloaded'), size: 1n }],
      entries: [{ bucket: 0n, offset: 0n, keySize: 1n, dataSize: 1n, endpoint: 'e' }],
    });
    await call('plain', 'PromotionObjectHeartbeat', { client: A });
    await call('plain', 'PromotionAllocStart', { ...common, size: 1n, preferredSegments: [] });
    await call('plain', 'NotifyPromotionSuccess', common);
    await call('plain', 'NotifyPromotionFailure', common);
    await call('plain', 'EvictDiskReplica', { ...common, replicaType: 1 });
    await exist('offloaded', 'offloaded');
    await call('plain', 'BatchEvictDiskReplica', {
      client: A,
      keys: pack(['k', 'l', 'm']),
      tenant: TENANT,
      replicaType: 1,
    });
    await call('plain', 'PollRemoveAll', { client: A });
    await call('unknown source', 'CopyStart', { ...common, source: 's', targets: ['t'] });
    await call('plain', 'CopyEnd', common);
    await call('plain', 'CopyRevoke', common);
    await call('unknown source', 'MoveStart', { ...common, source: 's', target: 't' });
    await call('plain', 'MoveEnd', common);
    await call('plain', 'MoveRevoke', common);
    const dynamic = { ...common, task: id(9), epoch: 1n };
    await call('plain', 'DynamicReplicaCopyStart', { ...dynamic, source: 's', targets: ['t'] });
    await call('plain', 'DynamicReplicaCopyEnd', dynamic);
    await call('plain', 'DynamicReplicaCopyRevoke', dynamic);
    await call('unknown key', 'CreateCopyTask', { key, tenant: TENANT, targets: ['t'] });
    await call('unknown key, no targets', 'CreateCopyTask', { key, tenant: TENANT, targets: [] });
    await call('unknown key', 'CreateMoveTask', { key, tenant: TENANT, source: 's', target: 't' });
    await call('unknown', 'QueryTask', { task: id(9) });
    await call('none', 'FetchTasks', { client: A, count: 16n });
    await call('unknown', 'MarkTaskToComplete', { client: A, end: { id: id(9), state: 2, message: '' } });
  }
}
