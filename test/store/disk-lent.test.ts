/** A disk that is lent to a cluster, read by others: what is laid out for readers is theirs for as long as they read, and no longer. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { Keys, MooncakeStore, StoreNode } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { CLIENT_METHODS, METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './connect-support.js';
import { content, same } from './support.js';

const MiB = 2 ** 20;
const OBJECTS = 4;
const keys = Array.from({ length: OBJECTS }, (_, i) => `key-${i}`);
const values = keys.map((_, i) => content(MiB, i));

/** Runs with objects that are on the disk of one store alone, which has room for three of them to be read at a time. */
async function withDisk(use: (pair: { owner: MooncakeStore; reader: MooncakeStore; rpc: RpcClient }) => Promise<void>) {
  const folder = mkdtempSync(path(tmpdir(), 'mooncake-lent-'));
  const master = await MooncakeMaster.listen({ port: 0, admin: false, offload: true });
  const address = `127.0.0.1:${master.ports.rpc}`;
  const disk = { folder, capacityBytes: 32 * MiB, heartbeatMs: 10, bufferBytes: 3 * MiB };
  const stores: MooncakeStore[] = [];
  const join = async (segments?: string, lent?: typeof disk) => {
    const store = await MooncakeStore.connect({ master: address, segments, disk: lent });
    stores.push(store);
    return store;
  };
  const allOnDisk = () => master.service.disks.stats().objects === OBJECTS;
  const rpc = await RpcClient.connect('127.0.0.1', master.ports.rpc);
  try {
    const writer = await join('16MB', disk);
    await writer.batchPut(keys, values);
    await until(allOnDisk, 'the copies on the disk');
    await writer.close();
    const owner = await join(undefined, disk);
    await until(allOnDisk, 'the offer');
    await use({ owner, reader: await join(), rpc });
  } finally {
    rpc.close();
    for (const store of stores) await store.close();
    await master.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

test('whoever has read gives the memory back: one object after the other is read from little of it', () =>
  withDisk(async ({ owner, reader }) => {
    for (const store of [owner, reader]) {
      for (let round = 0; round < 3; round++) {
        for (const [i, key] of keys.entries()) assert.ok(same(await store.get(key), values[i]), `${round} ${key}`);
        const both = await store.batchGet(keys.slice(0, 2));
        assert.equal(
          both.map((value, i) => same(value, values[i])),
          [true, true],
          `round ${round} of ${store === owner ? 'the owner' : 'a reader'}`,
        );
        const get = await store.openGet(Keys.from(keys.slice(2)), { stride: MiB });
        await get.abort();
      }
      // Sizes are known without anything being laid out.
      assert.equal(
        [...(await store.batchGetSize(keys))],
        keys.map(() => MiB),
      );
      const view = await store.getView(keys[0]);
      assert.ok(same(view?.bytes, values[0]));
      for (const key of keys.slice(1)) await store.get(key);
      // What lies in the owner's memory still does.
      assert.ok(same(view?.bytes, values[0]));
      view?.release();
    }
  }));

test('memory that is being filled is not given to another, whatever is said about it', () =>
  withDisk(async ({ rpc }) => {
    const answer = await rpc.call(METHODS.GetReplicaList, { key: Buffer.from(keys[0]), tenant: 'default' });
    assert.ok(answer.ok);
    const copy = answer.value.replicas.find(({ descriptor }) => descriptor.kind === 'localDisk')?.descriptor;
    assert.ok(copy?.kind === 'localDisk');
    const [host, port] = copy.value.endpoint.split(':');
    const client = await RpcClient.connect(host, Number(port));
    try {
      const stage = (i: number) => {
        const args = { keys: [Buffer.from(`default\0${keys[i]}`)], sizes: [BigInt(MiB)] };
        return client.call(CLIENT_METHODS.batchGetOffloadObject, args);
      };
      const first = stage(0);
      const released = await Promise.all(
        Array.from({ length: 16 }, (_, batch) =>
          client.call(CLIENT_METHODS.releaseOffloadBuffer, { batch: BigInt(batch) }),
        ),
      );
      assert.not.ok(released.some(Boolean));
      const laidOut = await first;
      assert.ok(laidOut.ok);
      const { batch } = laidOut.value;
      assert.is(await client.call(CLIENT_METHODS.releaseOffloadBuffer, { batch }), true);
      assert.is(await client.call(CLIENT_METHODS.releaseOffloadBuffer, { batch }), false);
    } finally {
      client.close();
    }
  }));

test('a node of the stock configuration lends a disk, and takes it back when it is asked to', async () => {
  const folder = mkdtempSync(path(tmpdir(), 'mooncake-lent-'));
  const master = await MooncakeMaster.listen({ port: 0, admin: false, offload: true });
  const settings = {
    MOONCAKE_MASTER: `127.0.0.1:${master.ports.rpc}`,
    MOONCAKE_GLOBAL_SEGMENT_SIZE: '16MB',
    MOONCAKE_OFFLOAD_ENABLED: 'true',
    MOONCAKE_OFFLOAD_FILE_STORAGE_PATH: path(folder, 'disk'),
    MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES: `${32 * MiB}`,
    MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES: '4MB',
  };
  const before = Object.keys(settings).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, settings);
  const node = await StoreNode.start({ httpPort: 0 }).finally(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  try {
    await node.store.batchPut(keys, values);
    const { disks } = master.service;
    await until(() => disks.stats().objects === OBJECTS, 'the copies on the disk');
    assert.is(disks.stats().capacityBytes, 32 * MiB);
    for (const _ of ['once', 'again']) {
      const answer = await fetch(`${node.url}/api/unmount_local_disk`, { method: 'POST', body: '{}' });
      assert.equal([answer.status, await answer.text()], [200, '{"status": "success"}']);
      assert.equal([disks.stats().disks, disks.stats().objects], [0, 0]);
    }
    assert.ok((await node.store.batchGet(keys)).every((value, i) => same(value, values[i])));
  } finally {
    await node.close();
    await master.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
