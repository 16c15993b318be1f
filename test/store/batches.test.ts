import * as fc from 'fast-check';
import { Keys, LocalTransfer, type MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Copy, descriptors } from './descriptors.js';
import { code, content, random, same, withStore } from './support.js';

/** A store over a transfer with two memories of the caller's: bytes to put and room for what is got. */
async function withMemories(
  size: number,
  use: (store: MooncakeStore, from: Memory, to: Memory) => Promise<void>,
): Promise<void> {
  const transfer = new LocalTransfer();
  const memory = (bytes: Uint8Array) => ({ bytes, segment: transfer.register(bytes) });
  try {
    await withStore({ transfer }, (store) => use(store, memory(content(size, 1)), memory(new Uint8Array(size))));
  } finally {
    await transfer.close();
  }
}

interface Memory {
  bytes: Uint8Array;
  segment: number;
}

const shuffled = <T>(list: readonly T[], seed: number): T[] => {
  const next = random(seed);
  return list
    .map((entry) => [next(2 ** 30), entry] as const)
    .sort(([a], [b]) => a - b)
    .map(([, entry]) => entry);
};

/** Cuts `total` bytes into pieces at random places. */
function cuts(total: number, seed: number, most: number): [offset: number, length: number][] {
  const next = random(seed);
  const pieces: [number, number][] = [];
  for (let at = 0; at < total; ) {
    const length = Math.min(total - at, 1 + next(most));
    pieces.push([at, length]);
    at += length;
  }
  return pieces;
}

test('pieces in any order, over several objects, in several writes and reads, make whole verified objects', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 3000 }),
      fc.integer({ min: 1, max: 5 }),
      fc.nat(),
      async (count, size, calls, seed) => {
        const total = count * size;
        await withMemories(total, async (store, from, to) => {
          const keys = Keys.from(Array.from({ length: count }, (_, i) => `${i}`));
          const pieces = (to: 'objects' | 'memory', segment: number): Copy[] =>
            shuffled(cuts(total, seed + segment, 2 * size), seed).map(([offset, length]) => {
              const [memory, objects] = [
                [segment, offset],
                [OBJECTS, offset],
              ] as [[number, number], [number, number]];
              return to === 'objects'
                ? { source: memory, destination: objects, length }
                : { source: objects, destination: memory, length };
            });
          const split = (copies: Copy[]) =>
            Array.from({ length: calls }, (_, i) => descriptors(copies.filter((_, n) => n % calls === i)));

          const put = await store.openPut(keys, size, { stride: size });
          await Promise.all(split(pieces('objects', from.segment)).map((each) => put.write(each)));
          assert.equal([...(await put.commit())], Array(count).fill(0));

          const get = await store.openGet(keys, { stride: size });
          assert.equal([...get.sizes], Array(count).fill(size));
          await Promise.all(split(pieces('memory', to.segment)).map((each) => get.read(each)));
          assert.equal([...(await get.finish())], Array(count).fill(0));
          assert.ok(same(to.bytes, from.bytes));
          assert.is((await store.stats()).verifiedBytes, total);
          for (let i = 0; i < count; i++) {
            assert.ok(same(await store.get(`${i}`), from.bytes.subarray(i * size, (i + 1) * size)));
          }
        });
      },
    ),
    { numRuns: 60 },
  );
});

test('many MiB in layers, which several threads copy: every object is whole, and what changed where it lies is found', () => {
  const [count, size, layer] = [24, 2 ** 20, 2 ** 16];
  return withMemories(count * size, async (store, from, to) => {
    const keys = Keys.from(Array.from({ length: count }, (_, i) => `${i}`));
    const layers = (segment: number): [number, number][] => {
      const places = Array.from(
        { length: count * (size / layer) },
        (_, n) => (n % count) * size + Math.floor(n / count) * layer,
      );
      return places.map((place) => [segment, place]);
    };
    const [objects, length] = [layers(OBJECTS), layer];
    const put = await store.openPut(keys, size, { stride: size });
    await put.write(
      descriptors(layers(from.segment).map((source, n) => ({ source, destination: objects[n], length }))),
    );
    assert.equal([...(await put.commit())], Array(count).fill(0));
    const read = async () => {
      const get = await store.openGet(keys, { stride: size });
      await get.read(
        descriptors(layers(to.segment).map((destination, n) => ({ source: objects[n], destination, length }))),
      );
      return [...(await get.finish())];
    };
    assert.equal(await read(), Array(count).fill(0));
    assert.ok(same(to.bytes, from.bytes));
    const view = await store.getView('7');
    view!.bytes[size - 1] ^= 1;
    assert.equal(
      await read(),
      Array.from({ length: count }, (_, i) => (i === 7 ? STATUS.checksumMismatch : 0)),
    );
  });
});

test('only objects whose every byte was written become visible; the others are taken back', () =>
  withMemories(3000, async (store, from) => {
    const keys = Keys.from(['whole', 'part', 'none']);
    const put = await store.openPut(keys, 1000, { stride: 1000 });
    await put.write(descriptors([{ source: [from.segment, 0], destination: [OBJECTS, 0], length: 1999 }]));
    assert.equal([...(await store.batchIsExist(keys))], [0, 0, 0]);
    assert.equal([...(await put.commit())], [0, STATUS.invalidWrite, STATUS.invalidWrite]);
    assert.equal([...(await store.batchIsExist(keys))], [1, 0, 0]);
    assert.is((await store.stats()).metadata.incomplete, 0);
    assert.is(await store.put('part', content(5, 1)), true);
    assert.is(await code(() => put.commit()), 'ERR_CLOSED');
    assert.is(await code(() => put.write(descriptors([]))), 'ERR_CLOSED');
    await put.abort();
  }));

test('an aborted batch leaves nothing, keys that existed are passed over', () =>
  withMemories(100, async (store, from) => {
    await store.put('old', content(50, 9));
    const keys = Keys.from(['old', 'new']);
    const put = await store.openPut(keys, 50, { stride: 50 });
    assert.equal([...put.statuses], [STATUS.exists, 0]);
    await put.write(descriptors([{ source: [from.segment, 0], destination: [OBJECTS, 0], length: 100 }]));
    await put.abort();
    assert.equal([...(await store.batchIsExist(keys))], [1, 0]);
    assert.ok(same(await store.get('old'), content(50, 9)));
    const { metadata } = await store.stats();
    assert.equal([metadata.objects, metadata.incomplete], [1, 0]);
  }));

test('bytes that are written twice make no object, and the caller is told', () =>
  withMemories(100, async (store, from) => {
    const keys = Keys.from(['a', 'b']);
    const put = await store.openPut(keys, 50, { stride: 50 });
    const write = (offset: number, length: number) =>
      put.write(descriptors([{ source: [from.segment, 0], destination: [OBJECTS, offset], length }]));
    await write(0, 100);
    assert.is(await code(() => write(40, 5)), 'ERR_INVALID_ARGUMENT');
    assert.equal([...(await put.commit())], [STATUS.invalidWrite, 0]);
  }));

test('missed keys are passed over, and reading goes on for the others', () =>
  withMemories(150, async (store, from, to) => {
    await store.put('b', from.bytes.subarray(50, 100));
    const get = await store.openGet(Keys.from(['a', 'b', 'c']), { stride: 50 });
    assert.equal([...get.statuses], [STATUS.notFound, 0, STATUS.notFound]);
    assert.equal([...get.sizes], [0, 50, 0]);
    await get.read(descriptors([{ source: [OBJECTS, 0], destination: [to.segment, 0], length: 150 }]));
    assert.equal([...(await get.finish())], [STATUS.notFound, 0, STATUS.notFound]);
    assert.ok(same(to.bytes.subarray(50, 100), from.bytes.subarray(50, 100)));
    assert.ok([...to.bytes.subarray(0, 50), ...to.bytes.subarray(100)].every((byte) => byte === 0));
    assert.is((await store.stats()).misses.absent, 2);
  }));

test('a part of an object is unverified: served and counted, or a miss where checksums are required', async () => {
  for (const requireChecksum of [false, true]) {
    const transfer = new LocalTransfer();
    const to = new Uint8Array(100);
    const segment = transfer.register(to);
    await withStore({ transfer, requireChecksum }, async (store) => {
      await store.put('a', content(100, 1));
      const get = await store.openGet(Keys.from(['a']), { stride: 100 });
      await get.read(descriptors([{ source: [OBJECTS, 10], destination: [segment, 0], length: 90 }]));
      assert.equal([...(await get.finish())], [requireChecksum ? STATUS.invalidRead : 0]);
      const { unverifiedHits, misses } = await store.stats();
      assert.equal([unverifiedHits, misses.unverified], requireChecksum ? [0, 1] : [1, 0]);
      assert.ok(same(to.subarray(0, 90), content(100, 1).subarray(10)));
    });
    await transfer.close();
  }
});

test('descriptors that lie are refused before a byte beyond is touched', () =>
  withMemories(1000, async (store, from, to) => {
    const keys = Keys.from(['a', 'b']);
    const put = await store.openPut(keys, Float64Array.of(400, 300), { stride: 500 });
    const write = (segment: number, at: number, object: number, length: number) =>
      code(() => put.write(descriptors([{ source: [segment, at], destination: [OBJECTS, object], length }])));
    assert.is(await write(from.segment, 0, 0, 401), 'ERR_INVALID_ARGUMENT', 'beyond the object');
    assert.is(await write(from.segment, 0, 500, 501), 'ERR_INVALID_ARGUMENT', 'beyond the batch');
    assert.is(await write(from.segment, 0, 2 ** 53, 1), 'ERR_INVALID_ARGUMENT', 'far beyond');
    assert.is(await write(from.segment, 900, 0, 101), 'ERR_SEGMENT', 'beyond the memory');
    assert.is(await write(77, 0, 0, 1), 'ERR_SEGMENT', 'no such memory');
    const wrong = descriptors([{ source: [OBJECTS, 0], destination: [from.segment, 0], length: 1 }]);
    assert.is(await code(() => put.write(wrong)), 'ERR_INVALID_ARGUMENT', 'the wrong way round');
    await put.abort();

    await store.put('c', content(100, 1));
    const get = await store.openGet(Keys.from(['c']), { stride: 100 });
    const read = (object: number, segment: number, at: number, length: number) =>
      code(() => get.read(descriptors([{ source: [OBJECTS, object], destination: [segment, at], length }])));
    assert.is(await read(0, to.segment, 901, 100), 'ERR_SEGMENT');
    assert.is(await read(1, to.segment, 0, 100), 'ERR_INVALID_ARGUMENT');
    assert.is(await read(0, 77, 0, 100), 'ERR_SEGMENT');
    assert.ok(to.bytes.every((byte) => byte === 0));
  }));

test('arguments of a batch are checked by name', () =>
  withStore({}, async (store) => {
    const keys = Keys.from(['a', 'b']);
    const refused = async (work: () => unknown, argument: string) => {
      const error = await code(work).catch((other) => other);
      assert.is(error, 'ERR_INVALID_ARGUMENT', argument);
    };
    await refused(() => store.openPut(keys, 100, { stride: 99 }), 'stride');
    await refused(() => store.openPut(keys, new Float64Array(1), { stride: 100 }), 'sizes');
    await refused(() => store.openPut(['a'] as unknown as Keys, 1, { stride: 1 }), 'keys');
    await refused(() => store.openGet(keys, { stride: 0 }), 'stride');
    await refused(() => store.openGet(keys, undefined as never), 'options');
    await refused(() => store.openGet(keys, { stride: 1, timeoutMs: 0 }), 'timeoutMs');
    await refused(() => store.openGet(keys, { stride: 1, signal: 1 as never }), 'signal');
    await refused(() => store.openGet(keys, { stride: 1, tenant: 1 as never }), 'tenant');
    assert.is(await code(() => store.openGet(keys, { stride: 1, signal: AbortSignal.abort() })), 'ERR_ABORTED');
  }));

test.run();
