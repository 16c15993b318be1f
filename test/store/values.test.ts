import { LocalTransfer, MooncakeStore, STATUS } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { code, content, same, withStore } from './support.js';

const MiB = 2 ** 20;

test('values from one byte to 64 MiB come back as they were, by every way to get them', () =>
  withStore({ segments: '256MB' }, async (store) => {
    for (const size of [1, 7, 4096, 65537, MiB, 3 * MiB + 5, 64 * MiB]) {
      const value = content(size, size);
      const key = `size-${size}`;
      assert.is(await store.put(key, value), true);
      const got = await store.get(key);
      assert.ok(same(got, value), `get of ${size}`);
      assert.is(got?.buffer.byteLength, size, 'the result owns its memory');
      const into = new Uint8Array(size + 3).fill(9);
      assert.is(await store.getInto(key, into), size);
      assert.ok(same(into.subarray(0, size), value), `getInto of ${size}`);
      assert.equal([...into.subarray(size)], [9, 9, 9]);
      const view = await store.getView(key);
      assert.ok(view && same(view.bytes, value) && view.verified && view.zeroCopy, `getView of ${size}`);
      assert.ok(view.leaseMs > 0);
      assert.is(view.release(), true);
      assert.is(view.release(), false);
      assert.is(await store.getSize(key), size);
    }
    const { hits, bytesGot, verifiedBytes, unverifiedHits } = await store.stats();
    assert.is(hits, 21);
    assert.is(verifiedBytes, bytesGot);
    assert.is(unverifiedHits, 0);
  }));

test('what a caller does to its memory afterwards changes no object', () =>
  withStore({}, async (store) => {
    const value = content(100_000, 1);
    const before = value.slice();
    await store.put('a', value);
    value.fill(0);
    const got = await store.get('a');
    assert.ok(same(got, before));
    got?.fill(1);
    assert.ok(same(await store.get('a'), before));
  }));

test('an object never changes: a second put says false and keeps the first value', () =>
  withStore({}, async (store) => {
    const [first, second] = [content(1000, 1), content(2000, 2)];
    assert.is(await store.put('a', first), true);
    assert.is(await store.put('a', second), false);
    assert.is(await store.putParts('a', [second]), false);
    assert.ok(same(await store.get('a'), first));
    const { puts, existing, bytesPut } = await store.stats();
    assert.equal([puts, existing, bytesPut], [1, 2, 1000]);
  }));

test('upsert replaces, with another size too, and makes what is absent', () =>
  withStore({}, async (store) => {
    for (const size of [1000, 1000, 5, 70_000]) {
      const value = content(size, size + 1);
      await store.upsert('a', value);
      assert.ok(same(await store.get('a'), value));
    }
    await store.upsertParts('b', [content(3, 1), content(4, 2)]);
    assert.is(await store.getSize('b'), 7);
    assert.equal([...(await store.batchUpsert(['a', 'c'], [content(1, 1), content(2, 2)]))], [0, 0]);
    assert.is(await store.getSize('a'), 1);
  }));

test('parts are one value, empty ones and views of any buffer included', () =>
  withStore({}, async (store) => {
    const whole = content(300_000, 3);
    const parts = [whole.subarray(0, 1), new Uint8Array(0), whole.subarray(1, 99_999), whole.slice(99_999).buffer];
    await store.putParts('a', parts);
    assert.ok(same(await store.get('a'), whole));
    assert.equal([...(await store.batchPutParts(['b', 'c'], [parts, [whole]]))], [0, 0]);
    assert.ok(same(await store.get('b'), whole));
    assert.ok(same(await store.get('c'), whole));
  }));

test('values from and into registered memory', async () => {
  const transfer = new LocalTransfer();
  const memory = content(3 * MiB, 5);
  const segment = transfer.register(memory);
  const target = new Uint8Array(3 * MiB);
  const targetSegment = transfer.register(target);
  await withStore({ transfer }, async (store) => {
    assert.is(await store.putFrom('a', { segment, offset: 77, length: 2 * MiB }), true);
    assert.equal([...(await store.batchPutFrom(['b'], [{ segment, offset: 0, length: 10 }]))], [0]);
    await store.upsertFrom('b', { segment, offset: 10, length: 20 });
    const range = { segment: targetSegment, offset: 5, length: 2 * MiB };
    assert.is(await store.getInto('a', range), 2 * MiB);
    assert.ok(same(target.subarray(5, 5 + 2 * MiB), memory.subarray(77, 77 + 2 * MiB)));
    assert.ok(same(await store.get('b'), memory.subarray(10, 30)));
    assert.is(await code(() => store.putFrom('c', { segment: 4711, offset: 0, length: 1 })), 'ERR_SEGMENT');
    const beyond = { segment, offset: 3 * MiB - 5, length: 6 };
    assert.is(await code(() => store.putFrom('c', beyond)), 'ERR_INVALID_ARGUMENT');
  });
  // The transfer was the caller's and still is; the store's segments are gone from it.
  assert.ok(same(transfer.memory(segment), memory));
  await transfer.close();
});

test('batches answer key by key, and of a key named twice the first is stored', () =>
  withStore({}, async (store) => {
    const values = [content(10, 1), content(20, 2), content(30, 3)];
    assert.equal([...(await store.batchPut(['a', 'b', 'a'], values))], [0, 0, STATUS.exists]);
    const got = await store.batchGet(['b', 'x', 'a', 'a']);
    assert.ok(same(got[0], values[1]));
    assert.is(got[1], undefined);
    assert.ok(same(got[2], values[0]) && same(got[3], values[0]));
    assert.equal([...(await store.batchIsExist(['a', 'x', 'b']))], [1, 0, 1]);
    assert.equal([...(await store.batchGetSize(['a', 'x', 'b']))], [10, STATUS.notFound, 20]);
    const into = [new Uint8Array(10), new Uint8Array(10), new Uint8Array(19)];
    const read = await store.batchGetInto(['a', 'x', 'b'], into);
    assert.equal([read[0], read[1] < 0, read[2] < 0], [10, true, true]);
    const replicas = await store.batchGetReplicas(['a', 'x']);
    assert.is(replicas[0]?.size, 10);
    assert.is(replicas[0]?.replicas[0].state, 'complete');
    assert.is(replicas[1], undefined);
    const { misses } = await store.stats();
    assert.equal([misses.absent, misses.size], [2, 1]);
  }));

test('a value of another size than expected is a miss', () =>
  withStore({}, async (store) => {
    await store.put('a', content(100, 1));
    assert.is(await store.get('a', { size: 99 }), undefined);
    assert.is(await store.getView('a', { size: 101 }), undefined);
    assert.ok(await store.get('a', { size: 100 }));
    assert.is((await store.stats()).misses.size, 2);
  }));

test('removal: one, many, by pattern, all', () =>
  withStore({ leaseTtlMs: 60_000 }, async (store) => {
    const put = (keys: string[]) =>
      store.batchPut(
        keys,
        keys.map((_, i) => content(8, i)),
      );
    await put(['a1', 'a2', 'b1', 'b2', 'c']);
    assert.is(await store.remove('c'), true);
    assert.is(await store.remove('c'), false);
    await store.get('a1');
    assert.is(await code(() => store.remove('a1')), 'ERR_LEASED');
    assert.is(await store.removeByRegex('^a'), 1);
    assert.equal([...(await store.batchIsExist(['a1', 'a2', 'b1']))], [1, 0, 1]);
    assert.equal([...(await store.batchRemove(['a1', 'x'], { force: true }))], [0, STATUS.notFound]);
    assert.is(await store.removeAll(), 1);
    assert.is(await store.removeAll({ force: true }), 1);
    assert.is(await store.get('b2'), undefined);
    assert.is((await store.stats()).misses.removed, 1);
  }));

test('a tenant has a name space of its own', () =>
  withStore({}, async (store) => {
    await store.put('a', content(10, 1), { tenant: 'one' });
    assert.is(await store.get('a'), undefined);
    assert.is(await store.isExist('a', { tenant: 'two' }), false);
    await store.put('a', content(10, 2), { tenant: 'two' });
    assert.ok(same(await store.get('a', { tenant: 'one' }), content(10, 1)));
    assert.is(await store.removeAll({ tenant: 'one', force: true }), 1);
    assert.ok(same(await store.get('a', { tenant: 'two' }), content(10, 2)));
  }));

test('sizes of segments as a stock configuration spells them', async () => {
  const capacity = async (segments: string | number) => {
    const store = new MooncakeStore({ segments });
    const { metadata } = await store.stats();
    await store.close();
    return metadata.capacityBytes;
  };
  assert.is(await capacity('1MB'), 2 ** 20);
  assert.is(await capacity(' 1.5 mb'), 1.5 * 2 ** 20);
  assert.is(await capacity('64k'), 65536);
  assert.is(await capacity(65536), 65536);
  assert.is(await capacity('1G'), 2 ** 30);
  for (const bad of ['', 'GB', '1XB', '-1GB', '0', 0, -1, 1.5, Number.NaN, '1e3'] as (string | number)[]) {
    assert.is(await code(() => capacity(bad)), 'ERR_INVALID_ARGUMENT', `${bad}`);
  }
});

test('values that were kept for a while and dropped are collected', () =>
  withStore({ segments: '4MB' }, async (store) => {
    await store.put('a', content(MiB, 1));
    // As many as survive the collections of young memory.
    const kept: (Uint8Array | undefined)[] = [];
    const before = process.memoryUsage().rss;
    let most = 0;
    for (let i = 0; i < 1500; i++) {
      kept[i % 100] = await store.get('a');
      most = Math.max(most, process.memoryUsage.rss() - before);
    }
    assert.ok(kept.every((value) => value?.length === MiB));
    assert.ok(most < 900 * MiB, `${most / MiB} MiB were in use for 100 values of 1 MiB`);
  }));

test('populated memory holds what it held', async () => {
  const memory = content(100_000, 1);
  await withStore({ segments: [{ memory }, { length: '1MB' }], populate: true }, async (store) => {
    assert.ok(same(memory, content(100_000, 1)));
    await store.put('a', content(500_000, 2));
    assert.ok(same(await store.get('a'), content(500_000, 2)));
  });
});

test('a closed store refuses by name, and closes once', async () => {
  const store = new MooncakeStore({ segments: '1MB' });
  await store.put('a', content(10, 1));
  await Promise.all([store.close(), store.close()]);
  assert.is(await code(() => store.get('a')), 'ERR_CLOSED');
  assert.is(await code(() => store.put('a', content(1, 1))), 'ERR_CLOSED');
  assert.is(await code(() => store.stats()), 'ERR_CLOSED');
});

test.run();
