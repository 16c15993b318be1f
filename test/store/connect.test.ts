// Stores that join a cluster of our own master, in this process and in others: what calls give, over both data planes.
import { Keys, MooncakeError, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { MetadataServer } from 'mooncake-ts/master';
import { type ExpectedValue, METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withCluster } from './connect-support.js';
import { descriptors } from './descriptors.js';
import { code, content, failure, same } from './support.js';

const MiB = 2 ** 20;
/** Around the sizes at which values take other ways: windows of staging, groups of moves, steps of sums. */
const SIZES = [1, 63, 64, 1000, 2 ** 18 - 1, 2 ** 18, 2 ** 19, 2 ** 19 + 1, MiB, MiB + 1, 5 * MiB + 7];

for (const native of [undefined, false] as const) {
  const plane = native === undefined ? 'the accelerator where it is there' : 'TypeScript';

  test(`values of any size, own and far, by ${plane}`, () =>
    withCluster({}, async ({ join }) => {
      const lender = await join({ segments: '64MB', native });
      const user = await join({ native });
      for (const [i, size] of SIZES.entries()) {
        const value = content(size, i);
        assert.is(await user.put(`far/${size}`, value), true);
        assert.is(await user.put(`far/${size}`, content(size, 99)), false);
        assert.is(await lender.put(`own/${size}`, value), true);
        for (const store of [user, lender]) {
          for (const key of [`far/${size}`, `own/${size}`]) {
            assert.ok(same(await store.get(key), value), `${key} of ${size}`);
            const into = new Uint8Array(size + 3).fill(0xee);
            assert.is(await store.getInto(key, into), size);
            assert.ok(same(into.subarray(0, size), value));
            assert.equal([...into.subarray(size)], [0xee, 0xee, 0xee]);
            assert.is(await store.getInto(key, new Uint8Array(size - 1)), undefined);
            const view = await store.getView(key);
            assert.ok(view?.verified && same(view.bytes, value));
            assert.is(view.zeroCopy, store === lender);
            assert.is(await store.getSize(key), size);
          }
        }
      }
      const { misses, unverifiedHits } = user.counters();
      assert.is(unverifiedHits, 0);
      assert.is(misses.size, 2 * SIZES.length);
      assert.is(await user.get('absent'), undefined);
    }));

  test(`registered memory, parts and upserts, by ${plane}`, () =>
    withCluster({}, async ({ join }) => {
      await join({ segments: '64MB', native });
      const user = await join({ native });
      const memory = content(8 * MiB, 5);
      const segment = user.transfer.register(memory);
      await user.putFrom('from', { segment, offset: 1000, length: 3 * MiB });
      assert.ok(same(await user.get('from'), memory.subarray(1000, 1000 + 3 * MiB)));
      const target = new Uint8Array(8 * MiB);
      const into = user.transfer.register(target);
      assert.is(await user.getInto('from', { segment: into, offset: 77, length: 4 * MiB }), 3 * MiB);
      assert.ok(same(target.subarray(77, 77 + 3 * MiB), memory.subarray(1000, 1000 + 3 * MiB)));
      const parts = [content(10, 1), new Uint8Array(), content(MiB, 2), content(5, 3)];
      await user.putParts('parts', parts);
      assert.ok(same(await user.get('parts'), Buffer.concat(parts)));
      await user.upsert('parts', content(100, 9));
      await user.upsertParts('parts', [content(50, 4), content(60, 5)]);
      assert.ok(same(await user.get('parts'), Buffer.concat([content(50, 4), content(60, 5)])));
      await user.upsertFrom('parts', { segment, offset: 0, length: 110 });
      assert.ok(same(await user.get('parts'), memory.subarray(0, 110)));
      assert.is(await code(() => user.putFrom('x', { segment: 4_000_000, offset: 0, length: 1 })), 'ERR_SEGMENT');
      await user.transfer.unregister(segment);
      assert.is(await code(() => user.putFrom('x', { segment, offset: 0, length: 1 })), 'ERR_SEGMENT');
    }));

  test(`batches, by ${plane}`, () =>
    withCluster({}, async ({ join }) => {
      await join({ segments: '64MB', native });
      await join({ segments: '64MB', native });
      const user = await join({ native, segments: '16MB' });
      for (const [count, size] of [
        [1, 100],
        [300, 4096],
        [3000, 24],
        [20, 700_000],
      ]) {
        const keys = Array.from({ length: count }, (_, i) => `batch/${count}/${i}`);
        const values = keys.map((_, i) => content(size + (i % 7), i));
        assert.ok((await user.batchPut(keys, values)).every((status) => status === 0));
        assert.ok((await user.batchPut(keys, values)).every((status) => status === STATUS.exists));
        assert.equal([...new Set(await user.batchIsExist([...keys, 'absent']))].sort(), count === 0 ? [0] : [0, 1]);
        const got = await user.batchGet([...keys, 'absent']);
        assert.is(got.pop(), undefined);
        assert.ok(got.every((value, i) => same(value, values[i])));
        const sizes = await user.batchGetInto(
          keys,
          values.map(({ length }) => new Uint8Array(length)),
        );
        assert.equal(
          [...sizes],
          values.map(({ length }) => length),
        );
        const removed = await user.batchRemove([...keys, 'absent'], { force: true });
        assert.equal([...removed], [...keys.map(() => 0), STATUS.notFound]);
      }
      assert.equal([...(await user.batchPut([], []))], []);
      assert.equal(await user.batchGet([]), []);
    }));

  test(`pieces of objects, layer by layer, by ${plane}`, () =>
    withCluster({}, async ({ join }) => {
      await join({ segments: '32MB', native });
      const user = await join({ native });
      const memory = content(256 * 1024, 3);
      const segment = user.transfer.register(memory);
      const keys = Keys.from(['a', 'b', 'c']);
      const put = await user.openPut(keys, 65_536, { stride: 65_536 });
      // Halves of all three, the later half first; of `c` only one.
      const half = (object: number, which: number) => ({
        source: [segment, object * 65_536 + which * 32_768] as [number, number],
        destination: [OBJECTS, object * 65_536 + which * 32_768] as [number, number],
        length: 32_768,
      });
      await put.write(descriptors([half(0, 1), half(1, 1), half(2, 1)]));
      await put.write(descriptors([half(0, 0), half(1, 0)]));
      assert.equal([...(await put.commit())], [0, 0, STATUS.invalidWrite]);
      const target = new Uint8Array(256 * 1024);
      const into = user.transfer.register(target);
      const get = await user.openGet(keys, { stride: 65_536 });
      assert.equal([...get.statuses], [0, 0, STATUS.notFound]);
      const turned = [1, 0].map((object) => ({
        source: [OBJECTS, object * 65_536] as [number, number],
        destination: [into, (1 - object) * 65_536] as [number, number],
        length: 65_536,
      }));
      await get.read(descriptors(turned));
      assert.equal([...(await get.finish())], [0, 0, STATUS.notFound]);
      assert.ok(same(target.subarray(0, 65_536), memory.subarray(65_536, 131_072)));
      assert.ok(same(target.subarray(65_536, 131_072), memory.subarray(0, 65_536)));
    }));
}

test('removal, patterns and tenants', () =>
  withCluster({}, async ({ join }) => {
    const user = await join({ segments: '32MB' });
    const other = await join({ tenant: 'other' });
    for (const key of ['a/1', 'a/2', 'b/1']) await user.put(key, content(10, 1));
    await other.put('a/1', content(20, 2));
    assert.is(await other.getSize('a/1'), 20);
    assert.is(await other.getSize('a/1', { tenant: 'default' }), 10);
    assert.is(await user.isExist('a/2'), true);
    assert.is(await code(() => user.remove('a/2')), 'ERR_LEASED');
    assert.is(await user.remove('a/2', { force: true }), true);
    assert.is(await user.remove('a/2'), false);
    assert.is(await user.removeByRegex('^a/', { force: true }), 1);
    assert.is((await failure(() => user.removeByRegex('('))).argument, 'pattern');
    assert.is(await user.removeAll({ force: true }), 1);
    assert.is(await other.isExist('a/1'), true);
  }));

test('two copies, pins, groups and preferred segments reach the master', () =>
  withCluster({}, async ({ join, master }) => {
    const a = await join({ segments: [{ name: 'one', length: '8MB' }] });
    await join({ segments: [{ name: 'two', length: '8MB' }] });
    await a.put('copies', content(1000, 1), { replicas: 2 });
    assert.is((await a.getReplicas('copies'))?.replicas.length, 2);
    await a.put('there', content(1000, 1), { preferredSegments: ['two'] });
    const [there] = master.service.peek(Keys.from(['there']), 'default');
    assert.is(there.ok && there.value.replicas[0].segmentName, 'two');
    await a.put('pinned', content(10, 1), { hardPin: true, groups: 'g' });
    assert.is((await failure(() => a.put('soft', content(10, 1), { softPinTtlMs: 5 }))).code, 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => a.put('big', content(9 * MiB, 1))), 'ERR_NO_SPACE');
  }));

test('memory is lent and taken away while the store runs', () =>
  withCluster({}, async ({ join, master }) => {
    const lender = await join({ segments: '8MB' });
    const user = await join();
    const id = await lender.mountSegment({ length: '16MB' });
    assert.is(master.service.segments().length, 2);
    await user.put('large', content(12 * MiB, 1));
    await lender.unmountSegment(id);
    assert.is(master.service.segments().length, 1);
    assert.is(await user.get('large'), undefined);
    assert.is(await code(() => lender.unmountSegment(id)), 'ERR_SEGMENT');
    const memory = new Uint8Array(4 * MiB);
    const brought = await lender.mountSegment({ memory });
    await user.put('kept', content(1000, 2), { preferredSegments: [lender.transfer.address] });
    await lender.unmountSegment(brought, { graceMs: 50 });
    assert.is(master.service.segments().length, 1);
    await lender.close();
    assert.is(master.service.segments().length, 0);
  }));

test('copies and moves that the master asks for are carried out by whoever lends the source', () =>
  withCluster({}, async ({ join, address }) => {
    const names = ['a', 'b', 'c'];
    for (const name of names) await join({ segments: [{ name, length: '8MB' }] });
    const user = await join();
    const [host, port] = address.split(':');
    const rpc = await RpcClient.connect(host, Number(port));
    const ended = async (made: ExpectedValue<string>) => {
      assert.ok(made.ok, JSON.stringify(made));
      const task = made.value;
      let state = 0;
      await until(async () => {
        const asked = await rpc.call(METHODS.QueryTask, { task });
        assert.ok(asked.ok);
        state = asked.value.state;
        return state >= 2;
      }, 'the end of a task');
      return state;
    };
    const value = content(2 * MiB + 3, 1);
    await user.put('key', value, { preferredSegments: ['a'] });
    const call = { key: Buffer.from('key'), tenant: 'default' };
    const places = async () => (await user.getReplicas('key'))?.replicas.length;
    assert.is(await ended(await rpc.call(METHODS.CreateCopyTask, { ...call, targets: ['b', 'c'] })), 3);
    assert.is(await places(), 3);
    assert.is(await ended(await rpc.call(METHODS.CreateMoveTask, { ...call, source: 'a', target: 'b' })), 3);
    assert.is(await places(), 2);
    for (const gone of ['b', 'c'])
      assert.is(await ended(await rpc.call(METHODS.CreateMoveTask, { ...call, source: gone, target: 'a' })), 3);
    assert.is(await places(), 1);
    assert.ok(same(await user.get('key'), value));
    rpc.close();
  }));

test('an HTTP metadata server, and names of stock configurations', async () => {
  const server = await MetadataServer.listen({ port: 0 });
  try {
    await withCluster({}, async ({ join }) => {
      const lender = await join({ metadata: server.url, segments: '16MB' });
      const user = await join({ metadata: server.url });
      await user.put('key', content(MiB, 1));
      assert.ok(same(await user.get('key'), content(MiB, 1)));
      await lender.close();
    });
  } finally {
    await server.close();
  }
});

test('figures come from the master where its HTTP port is named, and are refused where not', () =>
  withCluster({ admin: true, adminPort: 0 }, async ({ join, master }) => {
    const store = await join({ segments: '16MB', admin: `127.0.0.1:${master.ports.admin}` });
    await store.put('key', content(1000, 1));
    const { puts, metadata } = await store.stats();
    assert.equal([puts, metadata.objects, metadata.capacityBytes], [1, 1, 16 * MiB]);
    const [segment] = await store.segments();
    assert.equal([segment.length, segment.endpoint], [16 * MiB, store.transfer.address]);
    assert.is(segment.id, master.service.segments()[0].id);
    const blind = await join();
    assert.is(await code(() => blind.stats()), 'ERR_NOT_SUPPORTED');
    assert.is(await code(() => blind.segments()), 'ERR_NOT_SUPPORTED');
    assert.is(blind.counters().puts, 0);
  }));

test('a hot cache serves what has not changed, and nothing else', () =>
  withCluster({}, async ({ join }) => {
    await join({ segments: '64MB' });
    const writer = await join();
    const reader = await join({ hotCache: '4MB' });
    const hits = () => reader.counters().hotCache?.hits;
    await writer.put('key', content(1000, 1));
    assert.ok(same(await reader.get('key'), content(1000, 1)));
    assert.is(hits(), 0);
    assert.ok(same(await reader.get('key'), content(1000, 1)));
    assert.is(hits(), 1);
    // The same size under the same key, other bytes.
    await writer.remove('key', { force: true });
    assert.is(await reader.get('key'), undefined);
    await writer.put('key', content(1000, 2));
    assert.ok(same(await reader.get('key'), content(1000, 2)));
    assert.is(hits(), 1);
    assert.ok(same(await reader.get('key'), content(1000, 2)));
    assert.is(hits(), 2);
    // A value handed out is the caller's: what he does to it is not seen by the next.
    (await reader.get('key'))?.fill(0);
    assert.ok(same(await reader.get('key'), content(1000, 2)));
    // The least recently read goes.
    for (let i = 0; i < 8; i++) {
      await writer.put(`big/${i}`, content(900_000, i));
      assert.ok(same(await reader.get(`big/${i}`), content(900_000, i)));
      assert.ok(same(await reader.get('key'), content(1000, 2)));
    }
    const { bytes = 0, capacityBytes = 0, objects } = reader.counters().hotCache ?? {};
    assert.ok(bytes <= capacityBytes && objects === 5, `${bytes} in ${objects}`);
    const before = hits() ?? 0;
    await reader.get('big/0');
    assert.is(hits(), before);
    await writer.put('unsummed', content(1000, 3));
  }));

test('objects without a checksum are served and counted, or missed where one is required', () =>
  withCluster({}, async ({ join }) => {
    await join({ segments: '16MB' });
    const writer = await join({ checksum: false });
    const strict = await join({ requireChecksum: true });
    await writer.put('key', content(1000, 1));
    assert.ok(same(await writer.get('key'), content(1000, 1)));
    assert.is(writer.counters().unverifiedHits, 1);
    assert.is(await strict.get('key'), undefined);
    assert.is(strict.counters().misses.unverified, 1);
  }));

test('wrong options are named, and whoever is refused leaves nothing open', () =>
  withCluster({}, async ({ address, master }) => {
    const bad: [object, string][] = [
      [{ master: 'x' }, 'master'],
      [{ master: 5 }, 'master'],
      [{ host: 'a b' }, 'host'],
      [{ port: -1 }, 'port'],
      [{ segments: 'lots' }, 'segments'],
      [{ localBufferSize: 0 }, 'localBufferSize'],
      [{ hotCache: 'x' }, 'hotCache'],
      [{ timeoutMs: 0 }, 'timeoutMs'],
      [{ checksum: 1 }, 'checksum'],
      [{ tenant: 5 }, 'tenant'],
      [{ hostId: 5 }, 'hostId'],
      [{ admin: 'x' }, 'admin'],
      [{ metadata: 'ftp://x' }, 'options.metadata'],
      [{ native: 1 }, 'native'],
    ];
    for (const [options, argument] of bad) {
      const error = await failure(() => MooncakeStore.connect({ master: address, ...options }));
      assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', argument]);
    }
    assert.is(await code(() => MooncakeStore.connect({ master: address, protocol: 'rdma' })), 'ERR_NOT_SUPPORTED');
    assert.is(await code(() => MooncakeStore.connect({ master: '127.0.0.1:1', segments: '1MB' })), 'ERR_PEER');
    assert.is(await code(() => MooncakeStore.connect(7 as never)), 'ERR_INVALID_ARGUMENT');
    assert.is(master.service.segments().length, 0);
  }));

test('what a joined store cannot do says so', () =>
  withCluster({}, async ({ join }) => {
    const store = await join();
    for (const call of [() => store.serve(), () => store.transfer.serve('x', () => 0)]) {
      assert.is(await code(call), 'ERR_NOT_SUPPORTED');
    }
    assert.is(await code(() => store.put('key', content(10, 1))), 'ERR_NO_SPACE');
    await store.close();
    await store.close();
    for (const call of [() => store.get('key'), () => store.put('key', content(1, 1)), () => store.isExist('key')]) {
      const error = await failure(call);
      assert.ok(error instanceof MooncakeError && error.code === 'ERR_CLOSED', error.message);
    }
  }));

test.run();
