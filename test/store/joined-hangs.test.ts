/**
 * What does not answer, and does not end either: peers that were stopped, masters that hang. Nothing that they were sent is taken
 * for undone, nobody waits for them to the end of a call, and what a master has forgotten is not carried on.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { Keys, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withCluster } from './connect-support.js';
import { descriptors } from './descriptors.js';
import { muteEngine, stoppable } from './mute.js';
import { code, content, failure, same } from './support.js';

const MiB = 2 ** 20;
/** Longer than the lane lets a test run. */
const NEVER = 3_600_000;

test('the room of a put whose bytes may still land is not given away; that of one to a dead node is', () =>
  withCluster({}, async ({ master, node, join }) => {
    const lent = await node('portable');
    const user = await join();
    await user.put('warm', content(10, 1));
    const before = master.service.stats();
    lent.signal('SIGSTOP');
    assert.is(await code(() => user.put('late', content(4 * MiB, 1), { timeoutMs: 300 })), 'ERR_TIMEOUT');
    const held = master.service.stats();
    assert.is(held.incomplete, 1);
    assert.ok(held.usedBytes - before.usedBytes >= 4 * MiB);
    assert.is(await user.isExist('late'), false);
    lent.signal('SIGCONT');
    await until(async () => (await user.get('warm')) !== undefined, 'the node');
    await lent.end();
    assert.is(await code(() => user.put('dead', content(4 * MiB, 1))), 'ERR_PEER');
    assert.is(master.service.stats().incomplete, 1);
  }));

test('the only copy of an object with a peer that was stopped: a miss, long before the call has to end', () =>
  withCluster({}, async ({ node, join }) => {
    const lent = await node('portable');
    const user = await join();
    await user.put('key', content(4 * MiB, 1));
    lent.signal('SIGSTOP');
    assert.is(await user.get('key', { timeoutMs: NEVER }), undefined);
    assert.is(await code(() => user.put('new', content(4 * MiB, 2), { timeoutMs: NEVER })), 'ERR_PEER');
    const { misses } = user.counters();
    assert.equal([misses['peer-lost'], misses['lease-expired'], misses.timeout], [1, 0, 0]);
    lent.signal('SIGCONT');
    await until(async () => same(await user.get('key'), content(4 * MiB, 1)), 'the node');
  }));

/** Runs with a master behind a way that can be stopped. */
async function withWay(
  use: (way: { address: string; stop(): void; go(): void; master: MooncakeMaster }) => Promise<void>,
): Promise<void> {
  const master = await MooncakeMaster.listen({ port: 0, admin: false, offload: true });
  const way = await stoppable(master.ports.rpc);
  try {
    await use({ address: `127.0.0.1:${way.port}`, stop: way.stop, go: way.go, master });
  } finally {
    way.close();
    await master.close();
  }
}

test('a master that hangs: calls fail long before they have to end, and work when it goes on', () =>
  withWay(async ({ address, stop, go }) => {
    const store = await MooncakeStore.connect({ master: address, segments: '16MB', timeoutMs: NEVER });
    try {
      await store.put('key', content(1000, 1));
      stop();
      assert.is(await code(() => store.put('new', content(1000, 2))), 'ERR_PEER');
      assert.is(await store.get('key'), undefined);
      assert.is(await code(() => store.isExist('key')), 'ERR_PEER');
      assert.is(await code(() => store.removeAll()), 'ERR_PEER');
      assert.is(store.counters().misses['peer-lost'], 1);
      go();
      await until(async () => same(await store.get('key'), content(1000, 1)), 'the master');
    } finally {
      await store.close();
    }
  }));

test('closing does not wait for a master that hangs, with a disk and puts under way', () =>
  withWay(async ({ address, stop }) => {
    const folder = mkdtempSync(path(tmpdir(), 'mooncake-hangs-'));
    const disk = { folder, capacityBytes: 16 * MiB, heartbeatMs: 10 };
    const store = await MooncakeStore.connect({ master: address, segments: '16MB', disk, timeoutMs: NEVER });
    try {
      await store.openPut(Keys.from(['open']), 1000, { stride: 1000 });
      stop();
      const starting = failure(() => store.put('starting', content(1000, 1)));
      await store.close();
      assert.ok(['ERR_PEER', 'ERR_CLOSED'].includes((await starting).code));
      assert.is(await code(() => store.isExist('key')), 'ERR_CLOSED');
    } finally {
      await store.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }));

/** Mounts memory of somebody who takes bytes and does not say so, as a client of its own that keeps pinging. */
async function mountMute(port: number, addr: number, length: number) {
  const engine = await muteEngine(addr, length);
  const endpoint = `127.0.0.1:${engine.port}`;
  const rpc = await RpcClient.connect('127.0.0.1', port);
  const segment = { id: 'ab'.repeat(16), name: 'mute', base: BigInt(addr), size: BigInt(length), endpoint };
  const client = 'cd'.repeat(16);
  const answer = await rpc.call(METHODS.MountSegment, { segment: { ...segment, protocol: 'tcp', hostId: '' }, client });
  assert.ok(answer.ok);
  const close = () => {
    engine.close();
    rpc.close();
  };
  return { close };
}

test('what a master has forgotten is not written on: its room may be another’s', async () => {
  let master = await MooncakeMaster.listen({ port: 0, admin: false });
  const port = master.ports.rpc;
  const mute = await mountMute(port, 2 ** 40, 64 * MiB);
  const user = await MooncakeStore.connect({ master: `127.0.0.1:${port}`, timeoutMs: NEVER });
  try {
    const segment = user.transfer.register(content(MiB, 1));
    const put = await user.openPut(Keys.from(['key']), MiB, { stride: MiB });
    const copy = descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: MiB }]);
    const written = failure(() => put.write(copy));
    await master.close();
    master = await MooncakeMaster.listen({ port, admin: false });
    const { code: why, message } = await written;
    assert.is(why, 'ERR_PEER');
    assert.match(message, 'forgotten');
    assert.equal([...(await put.commit())], [STATUS.notFound]);
  } finally {
    await user.close();
    mute.close();
    await master.close();
  }
});

test('an object on its way back from a disk goes nowhere when the master has forgotten it; the disk is offered anew', async () => {
  const options = {
    port: 0,
    admin: false,
    offload: true,
    promotionOnHit: true,
    promotionThreshold: 1,
  };
  const folder = mkdtempSync(path(tmpdir(), 'mooncake-hangs-'));
  let master = await MooncakeMaster.listen(options);
  const port = master.ports.rpc;
  const join = (segments: string | undefined, timeoutMs: number) =>
    MooncakeStore.connect({
      master: `127.0.0.1:${port}`,
      segments,
      disk: { folder, capacityBytes: 16 * MiB, heartbeatMs: 10 },
      timeoutMs,
    });
  let store = await join('16MB', 30_000);
  let mute: { close(): void } | undefined;
  try {
    await store.put('key', content(MiB, 1));
    const onDisk = () => master.service.disks.stats().objects === 1;
    await until(onDisk, 'the copy on the disk');
    await store.close();
    store = await join(undefined, NEVER);
    await until(onDisk, 'the offer');
    mute = await mountMute(port, 2 ** 40, 64 * MiB);
    await until(async () => {
      assert.ok(same(await store.get('key'), content(MiB, 1)));
      return master.service.disks.stats().promotions > 0;
    }, 'the way back');
    await master.close();
    master = await MooncakeMaster.listen({ ...options, port });
    await until(onDisk, 'the second offer');
    assert.ok(same(await store.get('key'), content(MiB, 1)));
  } finally {
    await store.close();
    mute?.close();
    await master.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
