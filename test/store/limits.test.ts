import { Keys, LocalTransfer, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptors } from './descriptors.js';
import { code, content, failure, same, withStore } from './support.js';

const MiB = 2 ** 20;

test('bad keys and values are refused by name and leave nothing', () =>
  withStore({ segments: '1MB' }, async (store) => {
    const value = content(10, 1);
    for (const key of ['', 'k'.repeat(65536), 7, null, undefined]) {
      const error = await failure(() => store.put(key as string, value));
      assert.is(error.code, 'ERR_INVALID_ARGUMENT');
      assert.is(await code(() => store.get(key as string)), 'ERR_INVALID_ARGUMENT');
    }
    assert.is(await store.put('k'.repeat(65535), value), true);
    for (const bad of [new Uint8Array(0), 'text', undefined, [1, 2]]) {
      assert.is(await code(() => store.put('a', bad as Uint8Array)), 'ERR_INVALID_ARGUMENT');
    }
    const detached = new Uint8Array(8);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    assert.is(await code(() => store.put('a', detached)), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.putParts('a', [])), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.putParts('a', [value, 1 as never])), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.batchPut(['a', 'b'], [value])), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.batchPut(['a'], [1 as never])), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.getInto('a', 'x' as never)), 'ERR_INVALID_ARGUMENT');
    assert.is(await code(() => store.put('a', value, { replicas: 0 })), 'ERR_INVALID_ARGUMENT');
    assert.is(await store.put('a', content(MiB + 1, 1)).catch(({ code }) => code), 'ERR_NO_SPACE');
    assert.equal([...(await store.batchPut(['a', 'b'], [new Uint8Array(0), value]))], [STATUS.invalidParams, 0]);
    const { metadata } = await store.stats();
    assert.equal([metadata.objects, metadata.incomplete], [2, 0]);
  }));

test('a size beyond one buffer becomes several segments, as even as can be', () =>
  withStore({ segments: '9GB' }, async (store) => {
    const lengths = (await store.segments()).map(({ length }) => length);
    assert.is(
      lengths.reduce((sum, length) => sum + length),
      9 * 1024 * MiB,
    );
    assert.ok(Math.max(...lengths) - Math.min(...lengths) <= 1);
    const value = content(MiB, 3);
    for (let i = 0; i < 8; i++) await store.put(`${i}`, value, { replicas: lengths.length });
    for (let i = 0; i < 8; i++) assert.ok(same(await store.get(`${i}`), value));
  }));

test('a store full of pinned objects says so and serves on', () =>
  withStore({ segments: '4MB' }, async (store) => {
    for (let i = 0; i < 4; i++) await store.put(`${i}`, content(MiB - 64, i), { hardPin: true });
    const error = await failure(() => store.put('more', content(MiB, 9)));
    assert.is(error.code, 'ERR_NO_SPACE');
    assert.is(error.value, 'more');
    assert.equal([...(await store.batchPut(['x', 'y'], [content(MiB, 1), content(64, 2)]))], [STATUS.noSpace, 0]);
    for (let i = 0; i < 4; i++) assert.ok(same(await store.get(`${i}`), content(MiB - 64, i)));
    await store.remove('2', { force: true });
    assert.is(await store.isExist('2'), false);
  }));

test('a store that is full makes room: what was used last stays', () => {
  let now = 0;
  return withStore({ segments: '8MB', now: () => now, evictionRatio: 0.1 }, async (store) => {
    for (let i = 0; i < 200; i++) {
      now += 20_000;
      assert.is(await store.put(`${i}`, content(200_000, i)), true);
      if (i > 0) assert.ok(same(await store.get('0'), content(200_000, 0)), `after ${i}`);
    }
    assert.is(await store.get('1'), undefined);
    const { misses, metadata } = await store.stats();
    assert.is(misses.evicted, 1);
    assert.ok(metadata.evictedObjects > 150);
  });
});

test('tenants: an unknown one is refused, a quota holds', () =>
  withStore({ tenants: { small: { quotaBytes: 1000 } } }, async (store) => {
    assert.is(await code(() => store.put('a', content(10, 1), { tenant: 'who' })), 'ERR_UNKNOWN_TENANT');
    assert.is(await store.get('a', { tenant: 'who' }), undefined);
    assert.is(await code(() => store.isExist('a', { tenant: 'who' })), 'ERR_UNKNOWN_TENANT');
    assert.is((await store.stats()).misses['unknown-tenant'], 1);
    assert.is(await store.put('a', content(500, 1), { tenant: 'small', hardPin: true }), true);
    assert.is(await code(() => store.put('b', content(600, 1), { tenant: 'small' })), 'ERR_QUOTA');
  }));

test('a pattern that would explode elsewhere is matched in linear time, one that is no pattern is refused', () =>
  withStore({}, async (store) => {
    await store.put(`${'a'.repeat(5000)}!`, content(1, 1));
    assert.is(await store.removeByRegex('(a+)+$'), 0);
    assert.is(await store.removeByRegex('(a|aa)+!$', { force: true }), 1);
    for (const bad of ['(', '[', '(?=a)', '(a)\\1', 'a'.repeat(100_000)]) {
      assert.is(await code(() => store.removeByRegex(bad)), 'ERR_INVALID_ARGUMENT', bad.slice(0, 20));
    }
    assert.is(await code(() => store.removeByRegex(7 as never)), 'ERR_INVALID_ARGUMENT');
  }));

test('a put that does not end can be taken over, and its late bytes land on nobody', async () => {
  const transfer = new LocalTransfer();
  const memory = content(1000, 1);
  const segment = transfer.register(memory);
  let now = 1e6;
  await withStore({ transfer, now: () => now }, async (store) => {
    const keys = Keys.from(['a']);
    const late = await store.openPut(keys, 1000, { stride: 1000 });
    assert.is(await store.put('a', content(1000, 2)), false, 'somebody is writing it');
    now += 31_000;
    assert.is(await store.put('a', content(1000, 2)), true);
    await late.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: 1000 }]));
    assert.ok((await late.commit())[0] < 0);
    assert.ok(same(await store.get('a'), content(1000, 2)));
    assert.is((await store.stats()).metadata.discardedPuts, 1);
  });
  await transfer.close();
});

test('an abort and a deadline end a call that has begun', () =>
  withStore({ segments: '256MB' }, async (store) => {
    const value = content(64 * MiB, 1);
    const end = new AbortController();
    const put = store.put('a', value, { signal: end.signal });
    setImmediate(() => end.abort());
    assert.is(await code(() => put), 'ERR_ABORTED');
    assert.is(await store.isExist('a'), false);
    assert.is(await code(() => store.put('a', value, { timeoutMs: 1 })), 'ERR_TIMEOUT');
    assert.is((await store.stats()).metadata.incomplete, 0);
    await store.put('a', value);
    assert.is(await store.get('a', { timeoutMs: 1 }).catch(({ code }) => code), undefined);
    assert.is((await store.stats()).misses.timeout, 1);
    assert.ok(same(await store.get('a'), value));
  }));

test('options are checked by name', async () => {
  const bad: [object, string][] = [
    [{ segments: [{ length: 2 ** 33 }] }, 'segments[0].length'],
    [{ segments: [{ name: 5, length: 10 }] }, 'segments[0].name'],
    [{ segments: [{ memory: 'x' }] }, 'segments[0].memory'],
    [{ segments: [{}] }, 'segments[0].length'],
    [{ segments: [null] }, 'segments[0]'],
    [{ checksum: 1 }, 'checksum'],
    [{ timeoutMs: 0 }, 'timeoutMs'],
    [{ evictionRatio: 2 }, 'evictionRatio'],
    [{ transfer: {} }, 'transfer'],
  ];
  for (const [options, argument] of bad) {
    const error = await failure(() => new MooncakeStore({ segments: '1MB', ...options }));
    assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', argument]);
  }
  assert.is(await code(() => new MooncakeStore(5 as never)), 'ERR_INVALID_ARGUMENT');
  assert.is((await failure(() => MooncakeStore.connect())).argument, 'master');
  const twice = [
    { name: 'a', length: 1000 },
    { name: 'a', length: 1000 },
  ];
  assert.is(await code(() => new MooncakeStore({ segments: twice })), 'ERR_SEGMENT');
});

test.run();
