/**
 * The calls about disks that both masters get, in order, and what is kept of each answer: kinds of copies, errors, keys in
 * order of their names. Clients that lend disks have remounted, as real ones have: stock forgets the disks of others.
 */
import { METHODS, type MethodName, type RpcClient } from 'mooncake-ts/rpc';
import { replicateConfig } from '../support/replicate-config.js';
import { type Answers, pack, segment } from './master-script.js';

const MiB = 2 ** 20;
const tenant = 'default';
const id = (n: number) => n.toString(16).padStart(32, '0');
const [A, B] = [id(0xa), id(0xb)];
const [SEGMENT_A, SEGMENT_B] = [id(0x51), id(0x52)];
const [SHARED_DISK, LOCAL_DISK] = [1, 2];
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Copy {
  descriptor: { kind: string; value: { size?: bigint; endpoint?: string; buffer?: { size: bigint } } };
  state: number;
}

function copyText({ descriptor: { kind, value }, state }: Copy): string {
  const where = kind === 'localDisk' ? ` at ${value.endpoint}` : '';
  return `${kind} ${value.buffer?.size ?? value.size}${where} state ${state}`;
}

/** What is left of a value when what is random, or of no order, is taken away. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Int32Array) return [...value];
  if (value instanceof Uint8Array) return Buffer.from(value).toString();
  if (Array.isArray(value)) {
    const items = value.map(plain);
    return items.every((item) => typeof item === 'string') ? items.sort() : items;
  }
  if (value instanceof Map) return Object.fromEntries([...value].map(([k, v]) => [String(plain(k)), plain(v)]).sort());
  if (typeof value !== 'object' || value === null) return value ?? null;
  const one = value as Record<string, unknown>;
  if ('ok' in one) return one.ok ? { ok: plain(one.value) } : one.error;
  if ('descriptor' in one) return copyText(one as unknown as Copy);
  if ('tenant' in one && 'size' in one) return `${plain(one.key)} ${one.size}`;
  if ('target' in one) return plain(one.target);
  return Object.fromEntries(Object.entries(one).map(([k, v]) => [k, plain(v)]));
}

/** Runs the script; answers by step. `leaseMs`: the master's, which promotes what is read twice. */
export async function diskScript(rpc: RpcClient, leaseMs: number): Promise<Answers> {
  const answers: Answers = {};
  const call = async (step: string, name: MethodName, args: Record<string, unknown> = {}) => {
    const label = `${name}: ${step}`;
    if (label in answers) throw new Error(`two steps ${label}`);
    try {
      answers[label] = plain(await rpc.call(METHODS[name] as never, args as never));
    } catch (error) {
      answers[label] = String((error as { code: string }).code);
    }
  };
  const key = (name: string) => Buffer.from(name);
  const get = (step: string, name: string) => call(`${name} ${step}`, 'GetReplicaList', { key: key(name), tenant });
  const put = async (name: string, preferred = 'a') => {
    const start = {
      client: A,
      key: key(name),
      size: 1000n,
      config: replicateConfig({ preferredSegments: [preferred] }),
      tenant,
    };
    await call(name, 'PutStart', start);
    const object = { key: key(name), checksum: 7n };
    await call(name, 'PutEnd', { client: A, object, replicaType: 4, tenant });
  };
  const heartbeat = (step: string, client = A, offload = true) =>
    call(step, 'OffloadObjectHeartbeat', { client, offload });
  const note = (step: string, names: readonly string[], dataSize = 1000n, client = A) =>
    call(step, 'NotifyOffloadSuccess', {
      client,
      objects: names.map((name) => ({ tenant, key: key(name), size: 1000n })),
      entries: names.map(() => ({ bucket: 1n, offset: 0n, keySize: 3n, dataSize, endpoint: '127.0.0.1:9999' })),
    });
  const evict = (step: string, name: string, client = A, replicaType = LOCAL_DISK) =>
    call(step, 'EvictDiskReplica', { client, key: key(name), tenant, replicaType });
  const promotions = (step: string) => call(step, 'PromotionObjectHeartbeat', { client: A });
  const promote = (step: string, name: string, client = A, size = 1000n) =>
    call(step, 'PromotionAllocStart', { client, key: key(name), tenant, size, preferredSegments: [] });
  const promoted = (step: string, name: string, client = A) =>
    call(step, 'NotifyPromotionSuccess', { client, key: key(name), tenant });
  const notPromoted = (step: string, name: string, client = A) =>
    call(step, 'NotifyPromotionFailure', { client, key: key(name), tenant });

  await disks();
  await offloading();
  await eviction();
  await removal();
  await promotion();
  await leaving();
  return answers;

  async function disks() {
    const a = segment(SEGMENT_A, 'a', 0x1_0000_0000n, BigInt(16 * MiB));
    const b = segment(SEGMENT_B, 'b', 0x2_0000_0000n, BigInt(16 * MiB));
    await call('a', 'MountSegment', { segment: a, client: A });
    await call('b', 'MountSegment', { segment: b, client: B });
    await call('a', 'ReMountSegment', { segments: [a], client: A });
    await call('b', 'ReMountSegment', { segments: [b], client: B });
    await heartbeat('no disk');
    await call('no disk', 'ReportSsdCapacity', { client: A, bytes: 1n });
    await promotions('no disk');
    await call('no disk', 'PollRemoveAll', { client: A });
    await call('no disk', 'UnmountLocalDiskSegment', { client: A });
    await note('no disk', ['early']);
    await get('from no disk', 'early');
    await call('first', 'MountLocalDiskSegment', { client: A, offload: true });
    await call('again', 'MountLocalDiskSegment', { client: A, offload: true });
    await heartbeat('nothing');
    await call('below 0', 'ReportSsdCapacity', { client: A, bytes: -1n });
    await call('1 MB', 'ReportSsdCapacity', { client: A, bytes: 1_000_000n });
    await promotions('nothing');
    await call('nothing', 'PollRemoveAll', { client: A });
  }

  async function offloading() {
    for (const name of ['one', 'two', 'removed']) await put(name);
    await put('elsewhere', 'b');
    await heartbeat('three objects');
    await heartbeat('nothing more');
    await call('while it is offloaded', 'Remove', { key: key('removed'), force: false, tenant });
    await note('three objects', ['one', 'two', 'removed']);
    for (const name of ['one', 'two', 'removed', 'elsewhere']) await get('after offload', name);
    await note('again', ['one']);
    await get('noted again', 'one');
    await note('of a client without a disk', ['one'], 1000n, B);
    await call('of B', 'MountLocalDiskSegment', { client: B, offload: true });
    await note('of another disk', ['one'], 1000n, B);
    await get('noted by another', 'one');
    await note('of old files', ['old', 'older']);
    await get('of old files', 'old');
    await call('old', 'ExistKey', { key: key('old'), tenant });
    await call('all', 'GetReplicaListByRegex', { pattern: '^old', tenant });
    await call('three', 'BatchGetReplicaList', { keys: pack(['one', 'none', 'old']), tenant });
    await call('lengths differ', 'NotifyOffloadSuccess', {
      client: A,
      objects: [{ tenant, key: key('x'), size: 1n }],
      entries: [],
    });
    await put('failing');
    await heartbeat('the failing one');
    await note('failed', ['failing'], -1n);
    await get('that failed', 'failing');
    await heartbeat('after the failure');
    await note('not asked', ['failing'], 1000n);
    await get('not asked', 'failing');
    await put('unwanted');
    await heartbeat('off', A, false);
    await heartbeat('on again');
  }

  async function eviction() {
    await call('on a disk alone', 'PutStart', {
      client: A,
      key: key('old'),
      size: 1000n,
      config: replicateConfig(),
      tenant,
    });
    await evict('one', 'one');
    await get('evicted', 'one');
    await evict('leased', 'old');
    await get('evicted', 'old');
    await evict('of another', 'older', B);
    await evict('on a shared disk', 'older', A, SHARED_DISK);
    await evict('in memory', 'older', A, 0);
    await get('still there', 'older');
    await evict('absent', 'none');
    await evict('on no disk', 'elsewhere');
    await call('three', 'BatchEvictDiskReplica', {
      client: A,
      keys: pack(['older', 'none', 'elsewhere']),
      tenant,
      replicaType: LOCAL_DISK,
    });
    await get('evicted', 'older');
    await promotions('of what is gone');
  }

  async function removal() {
    await note('to be removed', ['gone', 'gone too']);
    await wait(leaseMs + 100);
    await call('on a disk alone', 'Remove', { key: key('gone'), force: false, tenant });
    await call('after one removal', 'PollRemoveAll', { client: A });
    await call('everything', 'RemoveAll', { force: true, tenant });
    await call('after a removal of all', 'PollRemoveAll', { client: A });
    await call('once', 'PollRemoveAll', { client: A });
    await call('of B', 'PollRemoveAll', { client: B });
  }

  async function promotion() {
    await note('to be promoted', ['p', 'q', 'r']);
    await promote('not wanted', 'p');
    await promoted('not wanted', 'p');
    await notPromoted('not wanted', 'p');
    await promote('absent', 'none');
    await promoted('absent', 'none');
    await notPromoted('absent', 'none');
    for (const step of ['first', 'second', 'third']) {
      await call(step, 'ExistKey', { key: key('p'), tenant });
    }
    await promotions('lookups do not count');
    await get('read once', 'p');
    await promotions('read once');
    await get('read twice', 'p');
    await promotions('read twice');
    await promotions('handed out');
    await promote('of another', 'p', B);
    await promote('of another size', 'p', A, 999n);
    await promoted('before it began', 'p');
    await promote('p', 'p');
    await promote('again', 'p');
    await get('being promoted', 'p');
    await promoted('of another', 'p', B);
    await notPromoted('of another', 'p', B);
    await promoted('p', 'p');
    await promoted('again', 'p');
    await get('promoted', 'p');
    await call('q twice', 'BatchGetReplicaList', { keys: pack(['q', 'q']), tenant });
    await promotions('in one batch');
    await promote('q', 'q');
    await notPromoted('q', 'q');
    await get('not promoted', 'q');
    await get('r once', 'r');
    await get('r twice', 'r');
    await evict('to be promoted', 'r');
    await promote('evicted', 'r');
  }

  async function leaving() {
    await wait(leaseMs + 100);
    await put('both');
    await heartbeat('the last');
    await note('the last', ['both']);
    await call('a', 'UnmountSegment', { segment: SEGMENT_A, client: A });
    await get('after its memory has gone', 'both');
    await call('a', 'UnmountLocalDiskSegment', { client: A });
    await get('after its disk has gone', 'both');
    await get('after its disk has gone', 'q');
    await heartbeat('after its disk has gone');
    await note('after its disk has gone', ['late']);
  }
}
