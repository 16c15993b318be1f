import * as fc from 'fast-check';
import { MooncakeError, MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { content, random, same, withStore } from './support.js';

const KEYS = 12;
const MAX_VALUE = 40_000;

/** Every value says its key and a number in its first bytes, and is a function of them: nothing can be mistaken. */
function makeValue(key: number, number: number): Uint8Array {
  const value = content(16 + ((key * 7919 + number * 104729) % MAX_VALUE), key * 1000 + number);
  new DataView(value.buffer).setUint32(0, key);
  new DataView(value.buffer).setUint32(4, number);
  return value;
}

function isValue(key: number, got: Uint8Array): boolean {
  const view = new DataView(got.buffer, got.byteOffset, got.byteLength);
  return view.getUint32(0) === key && same(got, makeValue(key, view.getUint32(4)));
}

/** One worker's random work; every get that finds something finds what some put of that key gave. */
async function work(store: MooncakeStore, worker: number, seed: number, operations: number): Promise<number> {
  const next = random(seed + worker);
  let checked = 0;
  for (let i = 0; i < operations; i++) {
    const key = next(KEYS);
    const name = `key-${key}`;
    const number = worker * operations + i;
    try {
      switch (next(10)) {
        case 0:
        case 1:
        case 2:
          await store.put(name, makeValue(key, number));
          break;
        case 3:
          await store.upsert(name, makeValue(key, number));
          break;
        case 4:
          await store.remove(name, { force: next(2) === 0 });
          break;
        case 5: {
          const [got, other] = await store.batchGet([name, `key-${(key + 1) % KEYS}`]);
          assert.ok(got === undefined || isValue(key, got), name);
          assert.ok(other === undefined || isValue((key + 1) % KEYS, other));
          break;
        }
        case 6: {
          const view = await store.getView(name);
          // Others work while the view is held.
          if (view) await new Promise((resolve) => setImmediate(resolve));
          const right = view !== undefined && isValue(key, view.bytes);
          if (view?.release()) assert.ok(right, `view of ${name}`);
          break;
        }
        case 7: {
          const into = new Uint8Array(MAX_VALUE + 16);
          const size = await store.getInto(name, into);
          if (size !== undefined) assert.ok(isValue(key, into.subarray(0, size)), name);
          break;
        }
        default: {
          const got = await store.get(name);
          if (got !== undefined) {
            assert.ok(isValue(key, got), name);
            checked++;
          }
        }
      }
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      // What may happen to a put and a remove among others; anything else fails the test.
      const expected = ['ERR_NO_SPACE', 'ERR_LEASED', 'ERR_NOT_READY', 'ERR_NOT_FOUND'];
      assert.ok(expected.includes(error.code), `${error.code}: ${error.message}`);
    }
    if (next(4) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return checked;
}

test('readers, writers and removers at once, with eviction: a get finds exactly what was put, or nothing', async () => {
  let checked = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.constantFrom(true, false), async (seed, verify) => {
      let now = 0;
      // Room for a few values only, leases that end in the middle of things. Verification off is the harder half: then
      // it is the leases alone that keep wrong bytes away.
      const options = { segments: 150_000, leaseTtlMs: 20, now: () => (now += 0.25), verify };
      await withStore(options, async (store) => {
        const counts = await Promise.all(Array.from({ length: 6 }, (_, worker) => work(store, worker, seed, 150)));
        checked += counts.reduce((sum, count) => sum + count, 0);
        const { misses, metadata } = await store.stats();
        assert.is(misses.corrupt, 0);
        assert.is(metadata.incomplete, 0);
        assert.ok(metadata.evictedObjects > 0);
      });
    }),
    { numRuns: 20 },
  );
  assert.ok(checked > 1000, `${checked} gets were compared`);
});

test('values that take several turns of the event loop keep their bytes among others', () =>
  withStore({ segments: '128MB' }, async (store) => {
    const size = 20 * 2 ** 20;
    const values = Array.from({ length: 4 }, (_, i) => content(size, i));
    await Promise.all(values.map((value, i) => store.put(`${i}`, value)));
    let turns = 0;
    const ticking = setInterval(() => turns++, 0);
    const got = await Promise.all([0, 1, 2, 3, 2, 1].map((i) => store.get(`${i}`)));
    clearInterval(ticking);
    for (const [n, i] of [0, 1, 2, 3, 2, 1].entries()) assert.ok(same(got[n], values[i]), `${i}`);
    assert.ok(turns > 0, 'timers ran between the slices');
  }));

test('of many puts of one key at once exactly one is stored', () =>
  withStore({}, async (store) => {
    const results = await Promise.all(Array.from({ length: 50 }, (_, i) => store.put('a', content(1000, i))));
    assert.is(results.filter(Boolean).length, 1);
    assert.ok(same(await store.get('a'), content(1000, results.indexOf(true))));
  }));

test('stores of one process do not know each other', async () => {
  await withStore({}, (one) =>
    withStore({}, async (two) => {
      await one.put('a', content(10, 1));
      assert.is(await two.get('a'), undefined);
      assert.ok(one.transfer.address !== two.transfer.address);
      assert.ok(one instanceof MooncakeStore);
    }),
  );
});

test.run();
