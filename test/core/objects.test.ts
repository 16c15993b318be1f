// The object table against a naive model: every operation in any order, with keys that are hard to tell apart.
import fc from 'fast-check';
import { OBJECT_EXISTS, OBJECT_LISTS, ObjectTable } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { anyKey, type ModelObject, ModelTable, STOCK } from './objects-model.js';

const text = (key: Uint8Array) => Buffer.from(key).toString('latin1');

const step = fc.record({
  what: fc.constantFrom('insert', 'insert', 'remove', 'complete', 'lookup', 'read', 'find', 'link', 'unlink', 'touch'),
  tenant: fc.constantFrom(0, 1, 0xffff_ffff),
  keys: fc.array(anyKey, { minLength: 1, maxLength: 6 }),
  picks: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 1, maxLength: 4 }),
  number: fc.integer({ min: 0, max: 1000 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Some of the model's objects, chosen by numbers from 0 to 1. */
function pick(model: ModelTable, picks: number[]): ModelObject[] {
  const all = [...model.objects.values()];
  return all.length === 0 ? [] : picks.map((part) => all[Math.floor(part * all.length)]);
}

function apply(
  table: ObjectTable,
  model: ModelTable,
  gone: number[],
  { what, tenant, keys, picks, number }: Step,
): void {
  const out = new Float64Array(keys.length);
  const chosen = pick(model, picks);
  switch (what) {
    case 'insert': {
      const made = table.insertMany(tenant, keys, out);
      let expected = 0;
      for (const [i, key] of keys.entries()) {
        if (model.find(tenant, key)) {
          assert.is(out[i], OBJECT_EXISTS);
          continue;
        }
        assert.ok(out[i] > 0 && Number.isSafeInteger(out[i]));
        assert.not(gone.includes(out[i]), 'an id is given once');
        model.insert(tenant, key, out[i]);
        expected++;
      }
      assert.is(made, expected);
      return;
    }
    case 'remove':
      for (const object of new Set(chosen)) {
        assert.is(table.remove(object.id), true);
        assert.is(table.remove(object.id), false);
        model.remove(object);
        gone.push(object.id);
      }
      return;
    case 'complete':
      for (const object of chosen) {
        table.setState(object.id, 'complete');
        table.setSize(object.id, number * 2 ** 40);
        [object.complete, object.size] = [true, number * 2 ** 40];
      }
      return;
    case 'lookup':
    case 'read': {
      const found = table.lookupMany(tenant, keys, what, number, out);
      let expected = 0;
      for (const [i, key] of keys.entries()) {
        const object = model.find(tenant, key);
        assert.is(out[i], object ? (object.complete ? object.id : -object.id) : 0);
        if (!object?.complete) continue;
        expected++;
        if (what === 'lookup') object.lookupUntil = Math.max(object.lookupUntil, number);
        else object.leaseUntil = Math.max(object.leaseUntil, number);
        if (what === 'read') model.touch(object);
      }
      assert.is(found, expected);
      return;
    }
    case 'find': {
      const found = table.findMany(tenant, keys, out);
      for (const [i, key] of keys.entries()) {
        assert.is(out[i], model.find(tenant, key)?.id ?? 0);
        assert.is(table.find(tenant, key), out[i]);
      }
      assert.is(found, out.filter((id) => id > 0).length);
      return;
    }
    case 'link':
      for (const object of chosen) {
        table.link(object.id, number % OBJECT_LISTS);
        model.link(object, number % OBJECT_LISTS);
      }
      return;
    case 'unlink':
      for (const object of chosen) {
        assert.is(table.unlink(object.id), object.list >= 0);
        model.unlink(object);
      }
      return;
    case 'touch':
      table.touchMany([...chosen.map(({ id }) => id), ...gone.slice(-2), 0, -1, 0.5]);
      for (const object of chosen) model.touch(object);
      return;
  }
}

function scanAll(table: ObjectTable, most: number): number[] {
  const ids: number[] = [];
  let cursor = 0;
  do {
    const slice = table.scan(cursor, most);
    assert.ok(slice.ids.length <= most);
    ids.push(...slice.ids);
    cursor = slice.cursor;
  } while (cursor !== 0);
  return ids;
}

function listed(table: ObjectTable, list: number): number[] {
  const ids: number[] = [];
  for (let id = table.oldest(list); id !== 0; id = table.newer(id)) ids.push(id);
  return ids;
}

/** The table holds what the model holds. */
function compare(table: ObjectTable, model: ModelTable, gone: number[]): void {
  const objects = [...model.objects.values()];
  assert.is(table.count, objects.length);
  const ids = objects.map(({ id }) => id).sort((a, b) => a - b);
  assert.equal(
    scanAll(table, 3).sort((a, b) => a - b),
    ids,
  );
  for (const object of objects) {
    const { id } = object;
    assert.ok(table.has(id));
    assert.is(text(table.key(id)), text(object.key));
    assert.is(table.tenant(id), object.tenant);
    assert.equal(
      [table.state(id), table.lookupUntil(id), table.leaseUntil(id), table.size(id), table.list(id)],
      [object.complete ? 'complete' : 'processing', object.lookupUntil, object.leaseUntil, object.size, object.list],
    );
  }
  const keys = table.keys(ids);
  for (const [i, id] of ids.entries()) assert.is(text(keys.at(i)), text(table.key(id)));
  for (const id of gone) assert.not(table.has(id));
  for (const [number, list] of model.lists.entries()) {
    assert.equal(
      listed(table, number),
      list.map(({ id }) => id),
    );
  }
}

for (const shards of [1, 3]) {
  test(`${shards} shards: all operations mixed, as the model does them`, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
        const table = new ObjectTable({ shards });
        const model = new ModelTable();
        const gone: number[] = [];
        for (const one of steps) {
          apply(table, model, gone, one);
          compare(table, model, gone);
        }
        for (const { id } of model.objects.values()) assert.ok(table.remove(id));
        assert.equal(
          [table.stats().objects, table.stats().templates, table.stats().cells],
          [0, 0, 0],
          'nothing is left behind',
        );
      }),
      { numRuns: shards === 1 ? 150 : 100 },
    );
  });
}

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Key `number`: of the stock connector, of other engines, or short and plain. */
function keyOf(number: number): string {
  const hex = number.toString(16).padStart(8, '0').repeat(8);
  const kinds = [
    STOCK + hex,
    `${STOCK.replace('group:0', `group:${number % 7}`)}${hex}`,
    `${hex}_0_k`,
    `plain/${number}`,
  ];
  return kinds[number % 4];
}

for (const shards of [1, 5]) {
  test(`${shards} shards: 400,000 random steps over 60,000 keys, the table divided and emptied again`, () => {
    const next = random(shards);
    const table = new ObjectTable({ shards });
    const model = new Map<string, number>();
    const BATCH = 1000;
    const out = new Float64Array(BATCH);
    for (let round = 0; round < 400; round++) {
      // The population grows for the first half and shrinks for the second.
      const inserts = next() < (round < 200 ? 0.7 : 0.3);
      const names = Array.from({ length: BATCH }, () => keyOf(Math.floor(next() * 60_000)));
      if (inserts) {
        table.insertMany(3, names, out);
        names.forEach((name, i) => {
          assert.is(out[i] === OBJECT_EXISTS, model.has(name));
          if (out[i] > 0) model.set(name, out[i]);
        });
      } else {
        table.findMany(3, names, out);
        names.forEach((name, i) => {
          const id = model.get(name) ?? 0;
          // A name may come twice.
          assert.is(out[i] > 0 && !table.has(out[i]) ? 0 : out[i], id);
          assert.is(table.remove(out[i]), id > 0);
          model.delete(name);
        });
      }
      assert.is(table.count, model.size);
    }
    const names = [...model.keys()];
    const ids = new Float64Array(names.length);
    assert.is(table.findMany(3, names, ids), names.length);
    assert.equal([...ids], [...model.values()]);
    assert.is(table.findMany(4, names, ids), 0);
    const all = scanAll(table, 1000);
    assert.is(all.length, model.size);
    const keys = table.keys(all);
    assert.equal(new Set(Array.from(all, (_, i) => keys.text(i))), new Set(names));
    for (const id of all) table.remove(id);
    assert.equal([table.stats().objects, table.stats().templates, table.stats().cells], [0, 0, 0]);
  });
}

test('keys that share 32 bits of their hash are told apart by every part of theirs', () => {
  // Of 150,000 keys two or three pairs do, whatever the hash function.
  const COUNT = 150_000;
  const tail = 'ab'.repeat(32);
  const makers = [
    (i: number) => `${i}@${tail}`,
    (i: number) => `${tail}@${i}`,
    (i: number) => STOCK + i.toString(16).padStart(64, '0'),
    (i: number) => `${'long '.repeat(8)}${i}`,
  ];
  for (const [tenant, make] of makers.entries()) {
    const table = new ObjectTable();
    const keys = Array.from({ length: COUNT }, (_, i) => make(i));
    const ids = new Float64Array(COUNT);
    assert.is(table.insertMany(tenant, keys, ids), COUNT);
    const found = new Float64Array(COUNT);
    assert.is(table.findMany(tenant, keys, found), COUNT);
    assert.ok(found.every((id, i) => id === ids[i]));
  }
});

test('an object that is there throughout is listed exactly once, whatever happens between the slices', () => {
  const next = random(5);
  for (const shards of [1, 4]) {
    const table = new ObjectTable({ shards });
    const ids = new Float64Array(30_000);
    table.insertMany(
      0,
      Array.from(ids, (_, i) => keyOf(i)),
      ids,
    );
    const passing = ids.filter((_, i) => i % 3 === 0);
    const staying = new Set(ids.filter((_, i) => i % 3 !== 0));
    const seen: number[] = [];
    let cursor = 0;
    let made = 0;
    do {
      const slice = table.scan(cursor, 100);
      seen.push(...slice.ids);
      cursor = slice.cursor;
      for (let k = 0; k < 50; k++) {
        table.remove(passing[Math.floor(next() * passing.length)]);
        table.insert(0, `new ${made++}`);
      }
    } while (cursor !== 0);
    assert.is(new Set(seen).size, seen.length);
    assert.equal(new Set(seen.filter((id) => staying.has(id))), staying);
  }
});

test.run();
