import { LocalTransfer, type MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { code, content, same, withStore } from './support.js';

const SIZE = 100_000;

/** A store whose memory the test holds, so that it can do what no program should. */
async function withMemory(
  options: object,
  use: (store: MooncakeStore, memory: Uint8Array) => Promise<void>,
): Promise<void> {
  const memory = new Uint8Array(2 ** 21);
  await withStore({ segments: [{ name: 'mine', memory }], ...options }, (store) => use(store, memory));
}

/** Flips one bit of the object where it lies. */
async function flip(store: MooncakeStore, memory: Uint8Array, key: string, byte: number): Promise<void> {
  const info = await store.getReplicas(key);
  const replica = info?.replicas[0];
  if (replica?.segmentName !== 'mine') throw new Error('the object is not where the test thinks');
  memory[replica.offset + byte] ^= 4;
}

test('a corrupt byte anywhere is a miss by every way to read, and the object goes, to be stored anew', async () => {
  const ways: ((store: MooncakeStore) => Promise<unknown>)[] = [
    (store) => store.get('a'),
    (store) => store.getInto('a', new Uint8Array(SIZE)),
    (store) => store.getView('a'),
    async (store) => (await store.batchGet(['a']))[0],
  ];
  for (const byte of [0, 1, SIZE >> 1, SIZE - 1]) {
    for (const way of ways) {
      await withMemory({}, async (store, memory) => {
        await store.put('a', content(SIZE, 1));
        await flip(store, memory, 'a', byte);
        assert.is(await way(store), undefined, `byte ${byte}`);
        const { misses, hits } = await store.stats();
        assert.equal([misses.corrupt, hits], [1, 0]);
        assert.is(await store.isExist('a'), false);
        assert.is(await store.put('a', content(SIZE, 2)), true);
        assert.ok(same(await store.get('a'), content(SIZE, 2)));
      });
    }
  }
});

test('negative control: without verification the corrupt byte is handed out, counted as unverified', () =>
  withMemory({ verify: false }, async (store, memory) => {
    await store.put('a', content(SIZE, 1));
    await flip(store, memory, 'a', 5);
    const got = await store.get('a');
    assert.ok(got && !same(got, content(SIZE, 1)));
    assert.is((await store.getView('a'))?.verified, false);
    const { unverifiedHits, verifiedBytes } = await store.stats();
    assert.equal([unverifiedHits, verifiedBytes], [2, 0]);
  }));

test('an object without a checksum is served and counted, or a miss where checksums are required', async () => {
  const transfer = new LocalTransfer({ name: 'integrity' });
  await withStore({ transfer, checksum: false }, async (store) => {
    await store.put('a', content(10, 1));
    assert.ok(same(await store.get('a'), content(10, 1)));
    assert.is((await store.getReplicas('a'))?.checksum, undefined);
    assert.is((await store.stats()).unverifiedHits, 1);
  });
  await withStore({ checksum: false, requireChecksum: true }, async (store) => {
    await store.put('a', content(10, 1));
    assert.is(await store.get('a'), undefined);
    assert.is(await store.getView('a'), undefined);
    assert.is((await store.stats()).misses.unverified, 2);
  });
  await transfer.close();
  assert.is(
    await code(() => withStore({ verify: false, requireChecksum: true }, async () => {})),
    'ERR_INVALID_ARGUMENT',
  );
});

test('a read that outlives its lease is a miss, also when the bytes are right', () =>
  withStore({ leaseTtlMs: 20 }, async (store) => {
    const { Keys } = await import('mooncake-ts');
    await store.put('a', content(SIZE, 1));
    const get = await store.openGet(Keys.from(['a']), { stride: SIZE });
    await new Promise((resolve) => setTimeout(resolve, 40));
    assert.ok((await get.finish())[0] < 0);
    assert.is((await store.stats()).misses['lease-expired'], 1);
    const view = await store.getView('a');
    await new Promise((resolve) => setTimeout(resolve, 40));
    assert.is(view?.release(), false);
  }));

test('bytes of a force-removed object stay as they are while a lease protects them', () =>
  withStore({ segments: '1MB', leaseTtlMs: 60_000 }, async (store) => {
    const value = content(600_000, 1);
    await store.put('a', value);
    const view = await store.getView('a');
    assert.is(await store.remove('a', { force: true }), true);
    // The only place for it is the view's: it must not be given away.
    assert.is(await code(() => store.put('b', content(600_000, 2))), 'ERR_NO_SPACE');
    assert.ok(view && same(view.bytes, value));
    assert.is(view.release(), true);
  }));

test('a segment that is taken away takes its objects along, reads under way are misses, views end', () =>
  withStore({ segments: [{ name: 'one', length: '2MB' }] }, async (store) => {
    const { Keys } = await import('mooncake-ts');
    await store.put('a', content(SIZE, 1));
    const view = await store.getView('a');
    const get = await store.openGet(Keys.from(['a']), { stride: SIZE });
    const put = await store.openPut(Keys.from(['b']), SIZE, { stride: SIZE });
    await store.unmountSegment('one');
    assert.ok((await get.finish())[0] < 0);
    assert.ok((await put.commit())[0] < 0);
    assert.is(view?.release(), false);
    assert.is(await store.get('a'), undefined);
    assert.is(await code(() => store.put('c', content(1, 1))), 'ERR_NO_SPACE');
    assert.is(await store.mountSegment({ length: '2MB', name: 'two' }), 'two');
    assert.is(await store.put('c', content(1, 1)), true);
    assert.is(await code(() => store.unmountSegment('one')), 'ERR_SEGMENT');
  }));

test('checksums are those of the bytes handed over, whatever the memory they went to', async () => {
  const { crc64 } = await import('mooncake-ts');
  const value = content(3 * 2 ** 20 + 11, 7);
  const segments = [[{ length: '32MB' }], [{ memory: new Uint8Array(32 * 2 ** 20) }]];
  for (const each of [...segments, [{ memory: new Uint8Array(new SharedArrayBuffer(32 * 2 ** 20)) }]]) {
    await withStore({ segments: each }, async (store) => {
      await store.put('a', value);
      await store.putParts('b', [value.subarray(0, 5), value.subarray(5)], { replicas: 3 });
      assert.is((await store.getReplicas('a'))?.checksum, crc64(value));
      assert.is((await store.getReplicas('b'))?.checksum, crc64(value));
      assert.ok(same(await store.get('a'), value) && same(await store.get('b'), value));
      assert.is((await store.stats()).verifiedBytes, 2 * value.length);
    });
  }
});

test('copies of an object on several segments are all written', () =>
  withStore({ segments: Array.from({ length: 3 }, () => ({ memory: new Uint8Array(2 ** 20) })) }, async (store) => {
    const value = content(SIZE, 1);
    await store.put('a', value, { replicas: 3 });
    const info = await store.getReplicas('a');
    assert.is(new Set(info?.replicas.map(({ segment }) => segment)).size, 3);
    for (const { segmentName, offset } of info?.replicas ?? []) {
      const id = (await store.segments()).findIndex(({ name }) => name === segmentName);
      assert.ok(same(store.transfer.memory(id).subarray(offset, offset + SIZE), value));
    }
  }));

test.run();
