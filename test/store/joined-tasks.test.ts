// Joined stores carry out the tasks that the master has for them: copies, moves and drains of what lies in their memory.
import { Keys, type MooncakeStore } from 'mooncake-ts';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Cluster, withCluster } from './connect-support.js';
import { content, same } from './support.js';

const MiB = 2 ** 20;
const SIZES = [1, 1000, 2 ** 19, 2 ** 19 + 1, 5 * MiB + 7];
const DEADLINE_MS = 60_000;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Three stores that lend memory under a name, and calls to the master. */
async function withLenders(native: false | undefined, use: (world: Awaited<ReturnType<typeof open>>) => Promise<void>) {
  await withCluster({ leaseTtlMs: 5000 }, async (cluster) => {
    const world = await open(cluster, native);
    await use(world).finally(() => world.client.close());
  });
}

async function open({ master, address, join }: Cluster, native: false | undefined) {
  const stores: MooncakeStore[] = [];
  for (const name of ['a', 'b', 'c']) stores.push(await join({ segments: [{ name, length: '32MB' }], native }));
  const [host, port] = address.split(':');
  const client = await RpcClient.connect(host, Number(port), { timeoutMs: 10_000 });
  const tenant = 'default';
  const task = async (answer: Promise<{ ok: boolean; value?: string; error?: number }>) => {
    const { ok, value, error } = await answer;
    if (!ok) return error;
    for (const deadline = Date.now() + DEADLINE_MS; ; await wait(50)) {
      const asked = await client.call(METHODS.QueryTask, { task: value! });
      if (asked.ok && asked.value.state > 1) return `${asked.value.state} ${asked.value.message}`;
      assert.ok(Date.now() < deadline, 'the task was not carried out');
    }
  };
  return {
    master,
    client,
    stores,
    copy: (key: string, ...targets: string[]) =>
      task(client.call(METHODS.CreateCopyTask, { key: Buffer.from(key), tenant, targets }) as never),
    move: (key: string, source: string, target: string) =>
      task(client.call(METHODS.CreateMoveTask, { key: Buffer.from(key), tenant, source, target }) as never),
    where(key: string) {
      const [found] = master.service.peek(Keys.from([key]));
      return found.ok ? found.value.replicas.map(({ segmentName }) => segmentName).sort() : [];
    },
  };
}

for (const native of [undefined, false] as const) {
  const plane = native === undefined ? 'the accelerator where it is there' : 'TypeScript';

  test(`objects of any size are copied and moved, by ${plane}`, () =>
    withLenders(native, async ({ stores, copy, move, where }) => {
      const [a, b, c] = stores;
      for (const [i, size] of SIZES.entries()) {
        const key = `of ${size} é`;
        assert.is(await b.put(key, content(size, i), { preferredSegments: ['a'] }), true);
        assert.is(await copy(key, 'b', 'c'), '3 ');
        assert.equal(where(key), ['a', 'b', 'c']);
        assert.is(await copy(key, 'b'), '3 ', 'a copy is there');
        assert.is(await move(key, 'a', 'b'), '3 ', 'a copy is there');
        assert.equal(where(key), ['b', 'c']);
        assert.is(await move(key, 'c', 'a'), '3 ');
        assert.equal(where(key), ['a', 'b']);
        for (const store of [a, b, c]) assert.ok(same(await store.get(key), content(size, i)), key);
      }
    }));
}

test('what cannot be done is said, and leaves the object as it was', () =>
  withLenders(undefined, async ({ master, stores, copy, where }) => {
    const [a, b] = stores;
    await b.put('full', content(20 * MiB, 1), { preferredSegments: ['b'], hardPin: true });
    await a.put('k', content(20 * MiB, 2), { preferredSegments: ['a'] });
    const before = master.service.stats().usedBytes;
    const failed = copy('k', 'b');
    assert.equal(where('k'), ['a']);
    // There is no space, at first.
    await wait(1500);
    await b.remove('full', { force: true });
    assert.is(await failed, '3 ');
    assert.equal(where('k'), ['a', 'b']);
    assert.ok(before > 0 && same(await b.get('k'), content(20 * MiB, 2)));
  }));

test.run();
