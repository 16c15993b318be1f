// What strangers send to the master's port: mutilated requests of every method, and patterns that explode elsewhere.
import { connect } from 'node:net';
import { MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, pack, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { replicateConfig } from '../support/replicate-config.js';

const TENANT = 'default';
const CLIENT = '1'.repeat(32);
const KEY = Buffer.from(`${'a'.repeat(65_534)}b`);
const segment = {
  id: '2'.repeat(32),
  name: 's:1',
  base: 2n ** 32n,
  size: 2n ** 20n,
  endpoint: 's:1',
  protocol: 'tcp',
  hostId: '',
};
const config = replicateConfig({ hardPin: true });
const put = { client: CLIENT, key: KEY, size: 100n, config, tenant: TENANT };
const packed = { bytes: Buffer.from('ab'), offsets: Uint32Array.of(0, 1, 2) };

// Not of the name and endpoint of the first: who mounts under those is its owner, started again.
const other = { ...segment, id: '3'.repeat(32), name: 'o:1', base: 2n ** 33n, endpoint: 'o:1' };

async function serving(body: (master: MooncakeMaster, client: RpcClient) => Promise<void>): Promise<void> {
  const master = await MooncakeMaster.listen({ port: 0, admin: false });
  const client = await RpcClient.connect('127.0.0.1', master.ports.rpc);
  try {
    assert.ok((await client.call(METHODS.MountSegment, { segment, client: CLIENT })).ok);
    assert.ok((await client.call(METHODS.PutStart, put)).ok);
    const end = { client: CLIENT, object: { key: KEY, checksum: 5n }, replicaType: 4, tenant: TENANT };
    assert.ok((await client.call(METHODS.PutEnd, end)).ok);
    await body(master, client);
  } finally {
    client.close();
    await master.close();
  }
}

/** Repeatable noise: mulberry32. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function frame(method: { id: number }, body: Uint8Array): Buffer {
  const header = Buffer.alloc(20);
  header[0] = 0x15;
  header.writeUInt32LE(method.id, 8);
  header.writeUInt32LE(body.length, 12);
  return Buffer.concat([header, body]);
}

function send(port: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.on('data', () => {});
    socket.end(bytes);
  });
}

test('mutilated requests change nothing and stop nothing', () =>
  serving(async (master, client) => {
    const next = random(20260822);
    const below = (n: number) => Math.floor(next() * n);
    const start = { ...put, key: Buffer.from('other') };
    // Nothing that could, by a lucky byte, remove what is looked for at the end.
    const requests = [
      frame(METHODS.PutStart, pack(METHODS.PutStart.arguments!, start)),
      frame(
        METHODS.BatchPutStart,
        pack(METHODS.BatchPutStart.arguments!, {
          client: CLIENT,
          keys: packed,
          sizes: [1n, 2n],
          config,
          tenant: TENANT,
        }),
      ),
      frame(METHODS.BatchExistKey, pack(METHODS.BatchExistKey.arguments!, { keys: packed, tenant: TENANT })),
      frame(
        METHODS.BatchGetReplicaList,
        pack(METHODS.BatchGetReplicaList.arguments!, { keys: packed, tenant: TENANT }),
      ),
      frame(METHODS.MountSegment, pack(METHODS.MountSegment.arguments!, { segment: other, client: CLIENT })),
      frame(METHODS.ReMountSegment, pack(METHODS.ReMountSegment.arguments!, { segments: [other], client: CLIENT })),
      frame(
        METHODS.GetReplicaListByRegex,
        pack(METHODS.GetReplicaListByRegex.arguments!, { pattern: '^x+$', tenant: TENANT }),
      ),
    ];
    for (let i = 0; i < 400; i++) {
      const good = requests[below(requests.length)];
      const bad = Buffer.from(good);
      for (let flips = 1 + below(4); flips > 0; flips--) bad[20 + below(bad.length - 20)] = below(256);
      // Several on a connection, the last cut off.
      await send(master.ports.rpc, Buffer.concat([bad, good, bad, good.subarray(0, below(good.length))]));
    }
    const found = await client.call(METHODS.GetReplicaList, { key: KEY, tenant: TENANT });
    assert.ok(found.ok && found.value.checksum === 5n && found.value.replicas.length === 1);
    const ids = new Set<string>();
    for (const { id, usedBytes, capacityBytes } of master.service.segments()) {
      assert.ok(usedBytes <= capacityBytes);
      ids.add(id);
    }
    assert.ok(ids.has(segment.id));
  }));

test('a pattern that explodes elsewhere holds up nobody', () =>
  serving(async (_, client) => {
    const call = (pattern: string) => client.call(METHODS.GetReplicaListByRegex, { pattern, tenant: TENANT });
    const slow = [call('(a+)+$'), call('(a|aa)+c'), call('((a*)*)*b'), call('a{1000}{1000}'), call('(')];
    const others = await Promise.all(
      Array.from({ length: 50 }, () => client.call(METHODS.ExistKey, { key: KEY, tenant: TENANT })),
    );
    assert.ok(others.every((answer) => answer.ok && answer.value));
    const [first, second, third, fourth, bad] = await Promise.all(slow);
    assert.ok(first.ok && first.value.size === 0, 'the key ends in b');
    assert.ok(second.ok && second.value.size === 0);
    assert.ok(third.ok && third.value.size === 1);
    assert.ok(!fourth.ok && fourth.error === -600);
    assert.ok(!bad.ok && bad.error === -600);
  }));

test.run();
