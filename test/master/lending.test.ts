// The networked master over its RPC: restarts of clients, remounts and their fence, silence, and pauses of the master itself.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MasterEvent, MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { replicateConfig } from '../support/replicate-config.js';

const TENANT = 'default';
const id = (n: number) => n.toString(16).padStart(32, '0');
const [ALICE, BOB] = [id(1), id(2)];
const MiB = 2n ** 20n;
const segment = (n: number, name = `host:${n}`, endpoint = name) => ({
  id: id(100 + n),
  name,
  base: BigInt(n) << 32n,
  size: MiB,
  endpoint,
  protocol: 'tcp',
  hostId: '',
});
const CONFIG = replicateConfig();

async function running(
  body: (one: Awaited<ReturnType<typeof cluster>>) => Promise<void>,
  dataDir?: string,
): Promise<void> {
  const one = await cluster(dataDir);
  try {
    await body(one);
  } finally {
    one.client.close();
    await one.master.close();
  }
}

/** A master whose clock is `time.now`; it sweeps by itself, once a second of real time. */
async function cluster(dataDir?: string) {
  const time = { now: 1_000_000 };
  const events: MasterEvent[] = [];
  const master = await MooncakeMaster.listen({
    port: 0,
    admin: false,
    leaseTtlMs: 1000,
    clientTtlMs: 10_000,
    now: () => time.now,
    dataDir,
    onEvent: (event) => events.push(event),
  });
  const client = await RpcClient.connect('127.0.0.1', master.ports.rpc);
  const put = async (key: string) => {
    const args = { client: ALICE, key: Buffer.from(key), size: 100n, config: CONFIG, tenant: TENANT };
    const started = await client.call(METHODS.PutStart, args);
    if (!started.ok) return started.error;
    const object = { key: args.key, checksum: undefined };
    const ended = await client.call(METHODS.PutEnd, { client: ALICE, object, replicaType: 4, tenant: TENANT });
    return ended.ok ? 0 : ended.error;
  };
  const exists = async (key: string) => {
    const found = await client.call(METHODS.ExistKey, { key: Buffer.from(key), tenant: TENANT });
    return found.ok && found.value;
  };
  const mount = async (one: ReturnType<typeof segment>, by: string) => {
    const mounted = await client.call(METHODS.MountSegment, { segment: one, client: by });
    return mounted.ok ? 0 : mounted.error;
  };
  const ping = async (by: string) => {
    const answer = await client.call(METHODS.Ping, { client: by });
    return answer.ok && answer.value.clientState;
  };
  const said = (what: MasterEvent['what']) => events.filter((event) => event.what === what).length;
  const until = async (what: MasterEvent['what']) => {
    for (let i = 0; said(what) === 0; i++) {
      assert.ok(i < 1000, `no ${what} in 10 s`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  return { master, client, time, put, exists, mount, ping, said, until };
}

test('a client that is started again takes its place at once', () =>
  running(async ({ mount, put, exists, said }) => {
    assert.is(await mount(segment(1), ALICE), 0);
    assert.is(await put('k'), 0);
    assert.is(await mount({ ...segment(2), id: id(7), name: 'host:1', endpoint: 'elsewhere:1' }, BOB), 0);
    assert.is(await exists('k'), true, 'a name at another endpoint is another segment');
    assert.is(await mount({ ...segment(3, 'host:1'), id: id(8) }, id(3)), 0);
    assert.is(said('segment-replaced'), 1);
    assert.is(await exists('k'), false);
  }));

test('what is remounted and not known is fenced for a lease, and starts empty', () =>
  running(async ({ client, time, mount, ping, put, until, said }) => {
    assert.is(await ping(ALICE), 2);
    assert.ok((await client.call(METHODS.ReMountSegment, { segments: [segment(1)], client: ALICE })).ok);
    assert.is(await ping(ALICE), 1);
    assert.is(await put('early'), -200);
    // Mounting it as well does not go around the fence.
    assert.is(await mount(segment(1), ALICE), 0);
    assert.is(await put('early'), -200);
    assert.is(said('segment-mounted'), 0);
    time.now += 1001;
    await until('segment-mounted');
    assert.is(await put('late'), 0);
  }));

test('what was absent and went with a mount in its place is not known any more', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'lending-test-'));
  try {
    await running(async ({ mount }) => assert.is(await mount(segment(1), ALICE), 0), dataDir);
    await running(async ({ client, mount, said }) => {
      assert.is(await mount(segment(2, 'host:1'), BOB), 0);
      const segments = [{ ...segment(1), name: 'elsewhere' }];
      assert.ok((await client.call(METHODS.ReMountSegment, { segments, client: ALICE })).ok);
      assert.is(said('segment-fenced'), 1);
      assert.is(said('segment-mounted'), 1);
    }, dataDir);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});

test('a bad segment among those remounted keeps no client from being in order', () =>
  running(async ({ client, time, ping, until }) => {
    const bad = { ...segment(2), size: 0n };
    assert.ok((await client.call(METHODS.ReMountSegment, { segments: [bad, segment(1)], client: ALICE })).ok);
    assert.is(await ping(ALICE), 1);
    time.now += 1001;
    await until('segment-refused');
    await until('segment-mounted');
  }));

test('silence of a client costs it its segments; a pause of the master costs nobody', () =>
  running(async ({ client, time, ping, put, exists, mount, until, said }) => {
    assert.is(await mount(segment(1), ALICE), 0);
    assert.ok((await client.call(METHODS.ReMountSegment, { segments: [segment(1)], client: ALICE })).ok);
    assert.is(await put('k'), 0);
    // An hour between two sweeps: the process was stopped.
    time.now += 3_600_000;
    await new Promise((resolve) => setTimeout(resolve, 2100));
    assert.is(said('client-lost'), 0);
    assert.is(await ping(ALICE), 1);
    assert.is(await exists('k'), true);
    for (let i = 0; i < 5; i++) {
      time.now += 2500;
      await new Promise((resolve) => setTimeout(resolve, 1100));
    }
    await until('client-lost');
    assert.is(await exists('k'), false);
    assert.is(await ping(ALICE), 2);
    // It comes back with the same memory.
    assert.ok((await client.call(METHODS.ReMountSegment, { segments: [segment(1)], client: ALICE })).ok);
    time.now += 1001;
    for (let i = 0; (await put(`again ${i}`)) !== 0; i++) {
      assert.ok(i < 100);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }));

test.run();
