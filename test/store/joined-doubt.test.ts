// Joined stores in doubt: what was said by a master, a peer or a cache that is another by now is not acted upon.
import { Keys, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withCluster } from './connect-support.js';
import { descriptors } from './descriptors.js';
import { code, content, same } from './support.js';

const MiB = 2 ** 20;

test('a part of an object does not stand for the whole in a hot cache', () =>
  withCluster({}, async ({ join }) => {
    await join({ segments: '16MB' });
    const writer = await join();
    const reader = await join({ hotCache: '4MB' });
    const value = content(1000, 1);
    await writer.put('key', value);
    const memory = new Uint8Array(1000);
    const segment = reader.transfer.register(memory);
    const read = async (offset: number, length: number) => {
      memory.fill(0xee);
      const get = await reader.openGet(Keys.from(['key']), { stride: 1000 });
      await get.read(descriptors([{ source: [OBJECTS, offset], destination: [segment, offset], length }]));
      assert.equal([...(await get.finish())], [0]);
      return memory.subarray(offset, offset + length);
    };
    assert.ok(same(await read(0, 100), value.subarray(0, 100)));
    assert.ok(same(await read(500, 500), value.subarray(500)));
    assert.ok(same(await reader.get('key'), value));
    assert.is(reader.counters().misses.corrupt, 0);
  }));

test('a put from before the master forgot us neither ends nor takes back another of the same key', async () => {
  const options = { admin: false, leaseTtlMs: 100 };
  let master = await MooncakeMaster.listen({ ...options, port: 0 });
  const port = master.ports.rpc;
  const lender = await MooncakeStore.connect({ master: `127.0.0.1:${port}`, segments: '16MB' });
  const user = await MooncakeStore.connect({ master: `127.0.0.1:${port}` });
  try {
    const [first, second] = [content(MiB, 1), content(MiB, 2)];
    const memory = new Uint8Array(2 * MiB);
    memory.set(first);
    memory.set(second, MiB);
    const segment = user.transfer.register(memory);
    const copy = (at: number, to = 0) =>
      descriptors([{ source: [segment, at], destination: [OBJECTS, to], length: MiB }]);
    const keys = ['ended', 'taken back'];
    const whole = await user.openPut(Keys.from([keys[0]]), MiB, { stride: MiB });
    const none = await user.openPut(Keys.from([keys[1]]), MiB, { stride: MiB });
    await whole.write(copy(0));
    await master.close();
    master = await MooncakeMaster.listen({ ...options, port });
    await until(() => master.service.segments().length === 1, 'the remount');
    await until(
      async () => (await user.put('new', content(10, 2)).catch(() => false)) || user.isExist('new').catch(() => false),
      'a put',
    );
    // By now the user has been forgotten as well, and knows.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    const again = await user.openPut(Keys.from(keys), MiB, { stride: MiB });
    assert.equal([...again.statuses], [0, 0]);
    assert.equal([...(await whole.commit())], [STATUS.notFound]);
    assert.is(await user.isExist(keys[0]), false);
    await none.abort();
    await again.write(copy(MiB));
    await again.write(copy(MiB, MiB));
    assert.equal([...(await again.commit())], [0, 0]);
    for (const key of keys) assert.ok(same(await user.get(key), second), key);
  } finally {
    await user.close();
    await lender.close();
    await master.close();
  }
});

for (const native of [undefined, false] as const) {
  const plane = native === undefined ? 'the accelerator where it is there' : 'TypeScript';

  test(`what was placed with one run of a peer touches nothing of the next, by ${plane}`, () =>
    withCluster({}, async ({ join }) => {
      const [a, b] = [new Uint8Array(8 * MiB), new Uint8Array(8 * MiB)];
      const before = await join({ native, segments: [{ name: 'a', memory: a }] });
      const port = Number(before.transfer.address.split(':').pop());
      const user = await join({ native });
      await user.put('old', content(MiB, 1));
      const source = content(MiB, 2);
      const segment = user.transfer.register(source);
      const put = await user.openPut(Keys.from(['late']), MiB, { stride: MiB });
      const get = await user.openGet(Keys.from(['old']), { stride: MiB });
      await before.close();
      await join({ native, port, segments: [{ name: 'b', memory: b }] });
      for (let i = 0; i < 4; i++) assert.is(await user.put(`new/${i}`, content(MiB - 4096, 10 + i)), true);
      const copy = descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: MiB }]);
      await put.write(copy).catch(() => {});
      assert.ok((await put.commit())[0] < 0);
      for (let i = 0; i < 4; i++) assert.ok(same(await user.get(`new/${i}`), content(MiB - 4096, 10 + i)), `${i}`);
      await get.read(descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: MiB }])).catch(() => {});
      assert.is((await get.finish())[0], STATUS.transferFailed);
    }));
}

test('whoever is refused by what he asks for leaves no port open', () =>
  withCluster({}, async ({ join, address, master }) => {
    const before = await join();
    const port = Number(before.transfer.address.split(':').pop());
    await before.close();
    for (const [options, expected] of [
      [{ tenant: 5 as never }, 'ERR_INVALID_ARGUMENT'],
      [{ localBufferSize: 2 ** 50 }, 'ERR_OUT_OF_MEMORY'],
    ] as const) {
      assert.is(
        await code(() => MooncakeStore.connect({ master: address, port, segments: '1MB', ...options })),
        expected,
      );
      assert.is(master.service.segments().length, 0);
      await (await join({ port })).close();
    }
  }));

test.run();
