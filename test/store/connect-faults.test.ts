// Clusters in which something goes wrong: masters, nodes, bytes and time.
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { Keys, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withCluster } from './connect-support.js';
import { descriptors } from './descriptors.js';
import { silent } from './mute.js';
import { code, content, failure, same } from './support.js';

const MiB = 2 ** 20;
const uuid = () => randomUUID().replaceAll('-', '');
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('a master that was restarted gets its clients back; what the old one promised is not believed', async () => {
  const options = { admin: false, leaseTtlMs: 200 };
  let master = await MooncakeMaster.listen({ ...options, port: 0 });
  const port = master.ports.rpc;
  const lender = await MooncakeStore.connect({ master: `127.0.0.1:${port}`, segments: '16MB' });
  const user = await MooncakeStore.connect({ master: `127.0.0.1:${port}` });
  try {
    await user.put('old', content(MiB, 1));
    const memory = new Uint8Array(MiB);
    const segment = user.transfer.register(memory);
    const whole = descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: MiB }]);
    const put = await user.openPut(Keys.from(['late']), MiB, { stride: MiB });
    await master.close();
    // Nobody waits for a master that is gone.
    assert.is(await user.get('old'), undefined);
    assert.is(user.counters().misses['peer-lost'], 1);
    assert.is(await code(() => user.put('new', content(10, 1))), 'ERR_PEER');
    assert.is(await code(() => user.isExist('old')), 'ERR_PEER');
    master = await MooncakeMaster.listen({ ...options, port });
    await until(() => master.service.segments().length === 1, 'the remount');
    await until(
      async () => (await user.put('new', content(MiB, 2)).catch(() => false)) || user.isExist('new'),
      'a put',
    );
    assert.ok(same(await user.get('new'), content(MiB, 2)));
    assert.is(await user.get('old'), undefined);
    assert.ok(same(await lender.get('new'), content(MiB, 2)));
    const copy = descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: MiB }]);
    await put.write(copy).catch(() => {});
    assert.ok((await put.commit())[0] < 0);
    assert.is(await user.get('late'), undefined);
    // A lease of the master before this one protects nothing.
    const get = await user.openGet(Keys.from(['new']), { stride: MiB });
    await master.close();
    master = await MooncakeMaster.listen({ ...options, port });
    await until(() => master.service.segments().length === 1, 'the second remount');
    await until(async () => !(await user.isExist('new').catch(() => true)), 'the second connection');
    await wait(1500);
    await get.read(whole).catch(() => {});
    assert.is((await get.finish())[0], STATUS.leaseExpired);
  } finally {
    await user.close();
    await lender.close();
    await master.close();
  }
});

test('a client that the master took for lost remounts, and its memory is used again', () =>
  withCluster({ clientTtlMs: 1500, leaseTtlMs: 100 }, async ({ node, join, master }) => {
    const lent = await node();
    const user = await join();
    await user.put('key', content(1000, 1));
    lent.signal('SIGSTOP');
    await until(() => master.service.segments().length === 0, 'the loss');
    lent.signal('SIGCONT');
    await until(() => master.service.segments().length === 1, 'the remount');
    await until(
      async () => (await user.put('more', content(1000, 2)).catch(() => false)) || user.isExist('more'),
      'a put',
    );
    assert.ok(same(await user.get('more'), content(1000, 2)));
    assert.is(await user.get('key'), undefined);
  }));

test('a node that is killed: the other copy is read, and what has none is a miss with a reason', () =>
  withCluster({}, async ({ node, join }) => {
    const [one, two] = [await node(), await node()];
    const user = await join();
    await user.put('both', content(3 * MiB, 1), { replicas: 2 });
    const keys = Array.from({ length: 200 }, (_, i) => `both/${i}`);
    const values = keys.map((_, i) => content(5000, i));
    await user.batchPut(keys, values, { replicas: 2 });
    await user.put('one', content(1000, 2), { preferredSegments: [one.name] });
    await user.put('two', content(1000, 3), { preferredSegments: [two.name] });
    await one.end();
    assert.ok(same(await user.get('both'), content(3 * MiB, 1)));
    assert.ok((await user.batchGet(keys)).every((value, i) => same(value, values[i])));
    assert.ok(same(await user.get('two'), content(1000, 3)));
    assert.is(await user.get('one'), undefined);
    assert.is(user.counters().misses['peer-lost'], 1);
    const known = user.counters().peers?.find(({ peer }) => peer === one.name);
    assert.ok(known && known.failures > 0 && known.isMistrusted);
    // Until the master has noticed, puts may still be sent there: those fail, others do not.
    const statuses = await user.batchPut(
      keys.map((key) => `new/${key}`),
      values,
    );
    const got = await user.batchGet(keys.map((key) => `new/${key}`));
    assert.ok(statuses.some((status) => status === 0));
    assert.ok(got.every((value, i) => (statuses[i] === 0 ? same(value, values[i]) : value === undefined)));
    const refused = await code(() => user.put('to one', content(10, 1), { preferredSegments: [one.name] }));
    assert.ok(['ERR_PEER', 'ERR_TIMEOUT'].includes(refused), refused);
    assert.is(await user.isExist('to one'), false);
    await two.end();
    assert.is(await user.get('both', { timeoutMs: 5000 }), undefined);
  }));

test('a node that hangs costs half of the time, then the other copy is read', () =>
  withCluster({}, async ({ node, join }) => {
    const [one, two] = [await node('portable'), await node('portable')];
    const user = await join();
    await user.put('both', content(MiB, 1), { replicas: 2 });
    const [first] = (await user.getReplicas('both'))?.replicas ?? [];
    const hung = first.endpoint === one.name ? one : two;
    hung.signal('SIGSTOP');
    try {
      assert.ok(same(await user.get('both', { timeoutMs: 8000 }), content(MiB, 1)));
      // It is tried last from now on.
      assert.ok(same(await user.get('both', { timeoutMs: 8000 }), content(MiB, 1)));
    } finally {
      hung.signal('SIGCONT');
    }
  }));

test('bytes that went bad: the other copy is read; without one it is a miss, and the object goes', () =>
  withCluster({}, async ({ join }) => {
    const [a, b] = [new Uint8Array(4 * MiB), new Uint8Array(4 * MiB)];
    const one = await join({ segments: [{ name: 'a', memory: a }] });
    const two = await join({ segments: [{ name: 'b', memory: b }] });
    const user = await join();
    for (const size of [1000, MiB]) {
      const value = content(size, size);
      await user.put('key', value, { replicas: 2 });
      for (const [memory, base] of [
        [a, one],
        [b, two],
      ] as const) {
        const at = Buffer.from(memory.buffer).indexOf(value.subarray(0, 64));
        assert.ok(at >= 0, base.transfer.address);
        memory[at + size - 1] ^= 1;
        if (memory === a) {
          for (let i = 0; i < 4; i++) assert.ok(same(await user.get('key'), value));
          assert.is(user.counters().misses.corrupt, size === 1000 ? 0 : 1);
        }
      }
      assert.is(await user.get('key'), undefined);
      assert.is(user.counters().misses.corrupt, size === 1000 ? 1 : 2);
      assert.is(await user.isExist('key'), false);
      assert.is(await user.put('key', value), true);
      assert.ok(same(await user.get('key'), value));
      await user.remove('key', { force: true });
    }
    // In memory of our own it is noticed as well.
    await one.put('mine', content(1000, 7), { preferredSegments: ['a'] });
    a[Buffer.from(a.buffer).indexOf(content(1000, 7))] ^= 1;
    assert.is(await one.get('mine'), undefined);
    assert.is(await one.isExist('mine'), false);
  }));

/** Mounts a segment that the client lies about. */
async function lie(address: string, segment: { name: string; endpoint: string; base: bigint; size: bigint }) {
  const [host, port] = address.split(':');
  const rpc = await RpcClient.connect(host, Number(port));
  const client = uuid();
  const whole = { id: uuid(), protocol: 'tcp', hostId: '', ...segment };
  const answer = await rpc.call(METHODS.MountSegment, { segment: whole, client });
  assert.ok(answer.ok);
  return { rpc, client };
}

test('addresses that nobody has, endpoints where nobody listens: puts fail, gets are misses', () =>
  withCluster({}, async ({ address, join }) => {
    const good = await join({ segments: [{ name: 'good', length: '4MB' }] });
    const wrong = { name: 'wrong', endpoint: good.transfer.address, base: 2n ** 46n, size: 1n << 20n };
    const nobody = { name: 'nobody', endpoint: '127.0.0.1:1', base: 2n ** 45n, size: 1n << 20n };
    const nonsense = { name: 'nonsense', endpoint: 'not an endpoint', base: 2n ** 44n, size: 1n << 20n };
    for (const segment of [wrong, nobody, nonsense]) {
      const { rpc, client } = await lie(address, segment);
      const user = await join();
      const preferredSegments = [segment.name];
      const error = await failure(() => user.put('key', content(100, 1), { preferredSegments }));
      assert.ok(['ERR_SEGMENT', 'ERR_PEER', 'ERR_INVALID_ARGUMENT'].includes(error.code), error.message);
      assert.is(await user.isExist('key'), false);
      const statuses = await user.batchPut(['k1', 'k2'], [content(10, 1), content(20, 2)], { preferredSegments });
      assert.equal([...statuses], [STATUS.invalidWrite, STATUS.invalidWrite]);
      // An object that its writer says is there.
      const config = { replicas: 1n, nofReplicas: 0n, dfsReplicas: 0n, softPin: 0, softPinTtlMs: undefined } as const;
      const rest = { hardPin: false, preferredSegment: '', preferredNofSegments: [], preferSameNode: false } as const;
      const replicate = { ...config, ...rest, preferredSegments, dataType: 0, hostId: '', groups: undefined };
      const key = Buffer.from('ghost');
      const tenant = 'default';
      await rpc.call(METHODS.PutStart, { client, key, size: 100n, config: replicate, tenant });
      const end = { client, object: { key, checksum: 5n }, replicaType: 4, tenant };
      assert.ok((await rpc.call(METHODS.PutEnd, end)).ok);
      // Nobody waits for what cannot be reached: the call itself may last an hour.
      assert.is(await user.get('ghost', { timeoutMs: 3_600_000 }), undefined);
      const { misses } = user.counters();
      assert.is(misses.removed + misses['peer-lost'], 1, JSON.stringify(misses));
      await user.remove('ghost', { force: true });
      assert.is(await user.put('fine', content(100, 1), { preferredSegments: ['good'] }), true);
      await user.remove('fine', { force: true });
      rpc.close();
    }
  }));

test('a reader that outlives its lease has read nothing', () =>
  withCluster({ leaseTtlMs: 100 }, async ({ join }) => {
    await join({ segments: '4MB' });
    const user = await join();
    await user.put('key', content(1000, 1));
    const target = new Uint8Array(1000);
    const segment = user.transfer.register(target);
    const get = await user.openGet(Keys.from(['key']), { stride: 1000 });
    await wait(150);
    await get.read(descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: 1000 }]));
    assert.is((await get.finish())[0], STATUS.leaseExpired);
    assert.is(user.counters().misses['lease-expired'], 1);
    assert.ok(same(await user.get('key'), content(1000, 1)));
  }));

test('a put that was aborted leaves nothing, nor does one whose time ran out', () =>
  withCluster({}, async ({ node, join }) => {
    const lent = await node('portable');
    const user = await join();
    await user.put('warm', content(10, 1));
    lent.signal('SIGSTOP');
    try {
      const controller = new AbortController();
      const aborted = code(() => user.put('a', content(4 * MiB, 1), { signal: controller.signal }));
      setTimeout(() => controller.abort(), 100);
      assert.is(await aborted, 'ERR_ABORTED');
      assert.is(await code(() => user.put('b', content(4 * MiB, 1), { timeoutMs: 200 })), 'ERR_TIMEOUT');
      assert.is(await user.get('warm', { timeoutMs: 200 }), undefined);
    } finally {
      lent.signal('SIGCONT');
    }
    await until(async () => (await user.get('warm')) !== undefined, 'the node');
    assert.equal([...(await user.batchIsExist(['a', 'b']))], [0, 0]);
    // No window of the staging memory was lost: all of it is used at once, several times.
    for (let i = 0; i < 2; i++) {
      const keys = Array.from({ length: 24 }, (_, n) => `round/${i}/${n}`);
      assert.ok(
        (
          await user.batchPut(
            keys,
            keys.map(() => content(MiB, i)),
          )
        ).every((status) => status === 0),
      );
      assert.ok((await user.batchGet(keys)).every((value) => same(value, content(MiB, i))));
      await user.removeAll({ force: true });
    }
  }));

test('a master that says nothing: connecting and calls end at their deadlines', async () => {
  const { port, close } = await silent();
  try {
    const options = { master: `127.0.0.1:${port}`, segments: '1MB', timeoutMs: 300 };
    assert.is(await code(() => MooncakeStore.connect(options)), 'ERR_TIMEOUT');
  } finally {
    close();
  }
});

test('the stock configuration: the file, the variables, what is wrong in them', () =>
  withCluster({}, async ({ address, master }) => {
    const folder = await mkdtemp(path(tmpdir(), 'mooncake-connect-'));
    const file = path(folder, 'mooncake.json');
    const names = ['MOONCAKE_CONFIG_PATH', 'MOONCAKE_MASTER', 'MOONCAKE_GLOBAL_SEGMENT_SIZE', 'MOONCAKE_PROTOCOL'];
    const before = names.map((name) => process.env[name]);
    const stock = {
      local_hostname: '127.0.0.1:12345',
      metadata_server: 'P2PHANDSHAKE',
      master_server_address: address,
      global_segment_size: '8mb',
      local_buffer_size: 4 * MiB,
      protocol: 'TCP',
      device_name: '',
      unknown: [1],
    };
    try {
      delete process.env.MOONCAKE_MASTER;
      process.env.MOONCAKE_CONFIG_PATH = file;
      await writeFile(file, JSON.stringify(stock));
      const store = await MooncakeStore.connect();
      assert.is(master.service.segments()[0].length, 8 * MiB);
      await store.put('key', content(10, 1));
      await store.close();
      const explicit = await MooncakeStore.connect({ segments: '2MB' });
      assert.is(master.service.segments()[0].length, 2 * MiB);
      await explicit.close();
      for (const [change, name] of [
        [{ local_hostname: undefined }, `${file}: local_hostname`],
        [{ master_server_address: '' }, `${file}: master_server_address`],
        [{ master_server_address: 'nowhere' }, `${file}: master_server_address`],
        [{ metadata_server: 5 }, `${file}: metadata_server`],
        [{ global_segment_size: [] }, `${file}: global_segment_size`],
        [{ global_segment_size: 'much' }, `${file}: global_segment_size`],
        [{ tenant_id: true }, `${file}: tenant_id`],
      ] as const) {
        await writeFile(file, JSON.stringify({ ...stock, ...change }));
        const error = await failure(() => MooncakeStore.connect());
        assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', name]);
      }
      const disk = { enable_ssd_offload: true, ssd_offload_path: path(folder, 'disk') };
      await writeFile(file, JSON.stringify({ ...stock, ...disk, ssd_offload_path: '' }));
      assert.match((await failure(() => MooncakeStore.connect())).argument ?? '', 'ssd_offload_path');
      // This master has no use for disks: stock clients refuse to start as well.
      await writeFile(file, JSON.stringify({ ...stock, ...disk }));
      assert.is(await code(() => MooncakeStore.connect()), 'ERR_NOT_SUPPORTED');
      for (const text of ['{', '[]', '']) {
        await writeFile(file, text);
        assert.is((await failure(() => MooncakeStore.connect())).argument, file);
      }
      delete process.env.MOONCAKE_CONFIG_PATH;
      process.env.MOONCAKE_MASTER = address;
      process.env.MOONCAKE_GLOBAL_SEGMENT_SIZE = `${3 * MiB}`;
      process.env.MOONCAKE_PROTOCOL = 'tcp';
      const byVariables = await MooncakeStore.connect();
      assert.is(master.service.segments()[0].length, 3 * MiB);
      await byVariables.close();
    } finally {
      for (const [i, name] of names.entries()) {
        if (before[i] === undefined) delete process.env[name];
        else process.env[name] = before[i];
      }
      await rm(folder, { recursive: true });
    }
  }));

test.run();
