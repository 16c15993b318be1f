// Rules of the object table that no model shows: memory, its limit, ids that are none, wrong arguments.
import { Keys, MAX_KEY_BYTES, OBJECT_EXISTS, OBJECT_TABLE_FULL, ObjectTable } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rejects } from '../support/rejects.js';
import { STOCK } from './objects-model.js';

const stock = (number: number) => STOCK + number.toString(16).padStart(8, '0').repeat(8);

const range = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

test('a stock key takes at most 170 bytes in all, 135 of them its own', () => {
  const table = new ObjectTable();
  const count = 300_000;
  const out = new Float64Array(1000);
  for (let first = 0; first < count; first += 1000) {
    assert.is(
      table.insertMany(
        0,
        range(1000, (i) => stock(first + i)),
        out,
      ),
      1000,
    );
  }
  assert.is(stock(0).length, 135);
  const { bytesUsed, templates, cells } = table.stats();
  assert.ok(bytesUsed / count <= 170, `${bytesUsed / count} bytes`);
  assert.equal([templates, cells], [1, count + 1]);
});

test('what is freed is used again, whatever kind of key it was: ten times the population, no more memory', () => {
  const kinds = [
    stock,
    (i: number) => `${'long '.repeat(100)}${i}`,
    (i: number) => `own template ${i} of ${'x'.repeat(100)}@${'ab'.repeat(16)}`,
    (i: number) => `${i}`,
  ];
  const table = new ObjectTable();
  const out = new Float64Array(5000);
  let after = 0;
  for (let round = 0; round < 40; round++) {
    const make = kinds[round % 4];
    // As many cells whatever the kind: a long key takes five, a template of its own two.
    const count = [5000, 1000, 1600, 5000][round % 4];
    assert.is(table.insertMany(round % 3, range(count, make), out), count);
    for (const id of out.subarray(0, count)) {
      table.link(id, round % 8);
      assert.ok(table.remove(id));
    }
    const { objects, templates, cells, bytes } = table.stats();
    assert.equal([objects, templates, cells], [0, 0, 0]);
    // Every kind has come once; segments of the tables are divided by chance.
    if (round === 3) after = bytes;
    if (round > 3) assert.ok(bytes <= after + 2 ** 19, `${after} bytes, then ${bytes}`);
  }
});

test('a full table refuses, with nothing half made, and takes objects again once others are removed', () => {
  for (const shards of [1, 2]) {
    const table = new ObjectTable({ shards, maxBytes: shards * 2 ** 22 });
    const ids: number[] = [];
    const out = new Float64Array(500);
    for (let first = 0; ; first += 500) {
      const made = table.insertMany(
        0,
        range(500, (i) => stock(first + i)),
        out,
      );
      ids.push(...out.filter((id) => id > 0));
      if (made === 500) continue;
      assert.ok(out.every((id) => id > 0 || id === OBJECT_TABLE_FULL));
      break;
    }
    assert.ok(ids.length > shards * 8000, `${ids.length} objects`);
    assert.ok(table.stats().bytes <= shards * 2 ** 22);
    assert.is(table.count, ids.length);
    // Fill what is left, then nothing fits and nothing changes.
    const more: number[] = [];
    // A part of the table that has room is found by chance: full is what refuses a thousand keys in a row.
    for (let i = 0, refused = 0; refused < 1000; i++) {
      const id = table.insert(1, `more ${i}`);
      if (id === OBJECT_TABLE_FULL) {
        refused++;
      } else {
        refused = 0;
        more.push(id);
      }
    }
    const before = table.stats();
    for (const key of ['a', stock(-1 >>> 0), `own@${'ab'.repeat(16)}`, 'l'.repeat(MAX_KEY_BYTES)]) {
      for (const tenant of [1, 2]) assert.is(table.insert(tenant, key), OBJECT_TABLE_FULL);
    }
    assert.equal(table.stats(), before);
    assert.is(table.insert(0, stock(0)), OBJECT_EXISTS);
    assert.is(table.find(0, stock(0)), ids[0]);
    for (const id of more) assert.ok(table.remove(id));
    for (const id of ids) assert.ok(table.remove(id));
    assert.is(table.stats().cells, 0);
    assert.ok(table.insert(2, 'l'.repeat(MAX_KEY_BYTES)) > 0);
    assert.is(table.insertMany(0, range(500, stock), out), 500);
  }
  rejects('maxBytes', () => new ObjectTable({ maxBytes: 2 ** 22 - 1 }));
  rejects('maxBytes', () => new ObjectTable({ shards: 2, maxBytes: 2 ** 22 }));
});

test('every field keeps its value, beside those of its neighbours; a record that is used again begins with zeros', () => {
  const table = new ObjectTable();
  const [before, id, behind] = ['before', 'this', 'behind'].map((key) => table.insert(0, key));
  const fields = () => ({
    state: table.state(id),
    flags: table.flags(id),
    size: table.size(id),
    checksum: table.checksum(id),
    leaseUntil: table.leaseUntil(id),
    lookupUntil: table.lookupUntil(id),
    pinUntil: table.pinUntil(id),
    disk: table.disk(id),
    handle: table.handle(id),
    owner: table.owner(id),
    extra: table.extra(id),
    group: table.group(id),
    list: table.list(id),
    key: table.keyText(id),
    tenant: table.tenant(id),
  });
  const expected: ReturnType<typeof fields> = {
    state: 'processing',
    flags: 0,
    size: 0,
    checksum: 0n,
    leaseUntil: 0,
    lookupUntil: 0,
    pinUntil: 0,
    disk: 0,
    handle: 0,
    owner: 0,
    extra: 0,
    group: 0,
    list: -1,
    key: 'this',
    tenant: 0,
  };
  const zeros = { ...expected };
  assert.equal(fields(), zeros);
  const now = 1_764_000_000_000.5;
  const changes: [name: keyof typeof expected, set: () => void, value: unknown][] = [
    ['state', () => table.setState(id, 'complete'), 'complete'],
    ['flags', () => table.setFlags(id, 255), 255],
    ['size', () => table.setSize(id, 2 ** 47), 2 ** 47],
    ['checksum', () => table.setChecksum(id, 2n ** 64n - 1n), 2n ** 64n - 1n],
    ['leaseUntil', () => table.setLeaseUntil(id, now), now],
    ['lookupUntil', () => table.setLookupUntil(id, now + 1), now + 1],
    ['pinUntil', () => table.setPinUntil(id, Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY],
    ['disk', () => table.setDisk(id, 0xffff_fffb), 0xffff_fffb],
    ['handle', () => table.setHandle(id, Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER],
    ['owner', () => table.setOwner(id, 0xffff_fffe), 0xffff_fffe],
    ['extra', () => table.setExtra(id, 0xffff_ffff), 0xffff_ffff],
    ['group', () => table.setGroup(id, 0xffff_fffd), 0xffff_fffd],
    ['list', () => table.link(id, 7), 7],
  ];
  for (const [name, set, value] of changes) {
    set();
    Object.assign(expected, { [name]: value });
    assert.equal(fields(), expected, name);
  }
  for (const other of [before, behind]) {
    assert.equal(
      [table.state(other), table.size(other), table.list(other), table.handle(other)],
      ['processing', 0, -1, 0],
    );
  }
  table.remove(id);
  const again = table.insert(0, 'this');
  assert.is.not(again, id);
  rejects('id', () => fields());
  rejects('id', () => table.setSize(id, 1));
  const dropped = [
    table.state(again),
    table.flags(again),
    table.size(again),
    table.checksum(again),
    table.handle(again),
  ];
  assert.equal(dropped, ['processing', 0, 0, 0n, 0]);
  assert.equal([table.leaseUntil(again), table.pinUntil(again), table.group(again), table.list(again)], [0, 0, 0, -1]);
});

test('ids that are none: stale, of no shard, of no record, no numbers', () => {
  const table = new ObjectTable({ shards: 2 });
  const ids = range(100, (i) => table.insert(0, `key ${i}`));
  const gone = ids.splice(0, 50);
  for (const id of gone) table.remove(id);
  // Their cells are used again, by objects and by the pieces of a long key.
  for (let i = 0; i < 30; i++) table.insert(0, `new ${i}`);
  table.insert(0, 'long '.repeat(300));
  const count = table.count;
  const strange = [
    0,
    -1,
    1,
    0.5,
    ids[0] + 0.5,
    -ids[0],
    2 ** 25,
    2 ** 52,
    2 ** 53,
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ];
  const words = [`${ids[0]}`, null, undefined, {}, BigInt(ids[0]), [ids[0]]];
  // Every other generation, and every cell of the first megabytes that is not an object's.
  const forged = range(40, (bit) => ids[0] + 2 ** bit).filter((id) => !table.has(id));
  const cells = range(70_000, (cell) => cell).filter((cell) => !ids.includes(cell));
  for (const id of [...gone, ...strange, ...words, ...forged]) {
    assert.not(table.has(id as never), `${String(id)}`);
    assert.not(table.remove(id as never));
    rejects('id', () => table.key(id as never));
    rejects('id', () => table.tenant(id as never));
    rejects('id', () => table.link(id as never, 0));
    rejects('id', () => table.newer(id as never));
  }
  assert.ok(forged.length > 30);
  const first = new Set(scanned(table));
  for (const cell of cells) assert.is(table.has(cell), first.has(cell));
  assert.is(table.touchMany([...gone, ...strange]), 0);
  assert.is(table.count, count);
  rejects('id', () => table.newer(ids[0]));
});

function scanned(table: ObjectTable): number[] {
  const ids: number[] = [];
  let cursor = 0;
  do {
    const slice = table.scan(cursor);
    ids.push(...slice.ids);
    cursor = slice.cursor;
  } while (cursor !== 0);
  return ids;
}

test('a lookup renews the protection of earlier ones where that has ended, and never shortens it', () => {
  const table = new ObjectTable();
  const id = table.insert(0, 'a');
  const out = new Float64Array(1);
  table.setState(id, 'complete');
  const until = (mode: 'lookup' | 'read', time: number, endedBy?: number) => {
    assert.is(table.lookupMany(0, ['a'], mode, time, out, endedBy), 1);
    return [table.lookupUntil(id), table.leaseUntil(id)];
  };
  assert.equal(until('lookup', 100, 0), [100, 0]);
  assert.equal(until('lookup', 150, 99), [100, 0]);
  assert.equal(until('lookup', 160, 100), [160, 0]);
  assert.equal(until('lookup', 120), [160, 0]);
  assert.equal(until('read', 50, 0), [160, 50]);
  assert.equal(until('read', 70, 0), [160, 70], 'a read always protects');
  assert.equal(until('read', 60), [160, 70]);
});

test('stamps rise with every link and use', () => {
  const table = new ObjectTable({ shards: 3 });
  const [a, b, c] = ['a', 'b', 'c'].map((key) => table.insert(0, key));
  for (const id of [b, c, a]) table.link(id, 1);
  assert.ok(table.stamp(b) < table.stamp(c) && table.stamp(c) < table.stamp(a));
  const before = table.stamp(c);
  table.unlink(c);
  assert.is(table.stamp(c), before);
  table.setState(b, 'complete');
  table.lookupMany(0, ['b'], 'lookup', 1, new Float64Array(1));
  assert.ok(table.stamp(b) < before, 'a lookup is no use');
  table.lookupMany(0, ['b'], 'read', 1, new Float64Array(1));
  assert.ok(table.stamp(b) > table.stamp(a));
  table.touchMany([a]);
  assert.ok(table.stamp(a) > table.stamp(b));
  rejects('id', () => table.stamp(0));
});

test('batches of any size: more keys than one pass takes, and more bytes', () => {
  for (const shards of [1, 3]) {
    const table = new ObjectTable({ shards });
    const keys = Keys.from([
      ...range(3000, (i) => `k${i}`),
      ...range(7, (i) => `${i}`.padEnd(MAX_KEY_BYTES, 'z')),
      ...range(2000, stock),
    ]);
    const out = new Float64Array(keys.length + 5).fill(7);
    assert.is(table.insertMany(0, keys, out), keys.length);
    assert.equal([...out.subarray(keys.length)], [7, 7, 7, 7, 7], 'what lies behind is left alone');
    assert.is(new Set(out.subarray(0, keys.length)).size, keys.length);
    const found = new Float64Array(keys.length);
    assert.is(table.findMany(0, keys, found), keys.length);
    assert.equal([...found], [...out.subarray(0, keys.length)]);
    const again = table.keys(found);
    assert.equal(again.offsets, keys.offsets);
    assert.ok(Buffer.compare(again.bytes, keys.bytes) === 0);
    assert.is(table.findMany(0, [], new Float64Array(0)), 0);
    // The order of use is that of the batch, over all shards and passes.
    for (const id of found) {
      table.setState(id, 'complete');
      table.link(id, 2);
    }
    const backwards = Keys.from(range(keys.length, (i) => keys.at(keys.length - 1 - i)));
    assert.is(table.lookupMany(0, backwards, 'read', 5, out), keys.length);
    let at = keys.length;
    for (let id = table.oldest(2); id !== 0; id = table.newer(id)) assert.is(id, found[--at]);
    assert.is(at, 0);
  }
});

test('the walk from the oldest goes on where the object it stands on was used or its neighbours removed', () => {
  for (const shards of [1, 4]) {
    const table = new ObjectTable({ shards });
    const ids = range(200, (i) => table.insert(0, `${i}`));
    for (const id of ids) table.link(id, 0);
    const walked: number[] = [];
    for (let id = table.oldest(0); id !== 0; ) {
      const at = ids.indexOf(id);
      walked.push(at);
      // Every third: the next three go.
      if (at % 3 === 0) for (const other of ids.slice(at + 1, at + 4)) table.remove(other);
      const next = table.newer(id);
      if (at % 2 === 0) table.remove(id);
      id = next;
    }
    assert.equal(
      walked,
      range(200, (i) => i).filter((i) => walked.includes(i)),
      'from old to new',
    );
    assert.ok(walked.length > 40);
    const left = ids.filter((id) => table.has(id));
    table.touchMany(left.slice(0, 1));
    assert.is(table.oldest(0), left[1]);
    assert.is(table.newer(left[0]), 0);
    assert.is(table.newer(left[left.length - 1]), left[0]);
  }
});

test('wrong arguments are named, and nothing has changed', () => {
  const table = new ObjectTable();
  const id = table.insert(0, 'kept');
  const before = table.stats();
  const out = new Float64Array(2);
  for (const value of [-1, 0.5, 2 ** 32, Number.NaN, '0', null, undefined, 0n]) {
    rejects('tenant', () => table.find(value as never, 'a'));
    rejects('tenant', () => table.insertMany(value as never, ['a'], out));
    rejects('owner', () => table.setOwner(id, value as never));
    rejects('extra', () => table.setExtra(id, value as never));
    rejects('group', () => table.setGroup(id, value as never));
    rejects('list', () => table.link(id, value as never));
    rejects('list', () => table.oldest(value as never));
    rejects('flags', () => table.setFlags(id, value as never));
  }
  rejects('list', () => table.link(id, 8));
  rejects('flags', () => table.setFlags(id, 256));
  for (const value of ['', 5, null, undefined, 'x'.repeat(65536), new Uint8Array(0), new Uint8Array(65536), ['a']]) {
    rejects('key', () => table.find(0, value as never));
    rejects('key', () => table.insert(0, value as never));
    rejects('keys[1]', () => table.insertMany(0, ['a', value as never], out));
  }
  for (const value of ['a', 5, null, undefined, { length: 1 }, new Uint8Array(3)]) {
    rejects('keys', () => table.findMany(0, value as never, out));
  }
  for (const value of [[0, 0], null, undefined, new Float32Array(2), new Float64Array(1)]) {
    rejects('out', () => table.insertMany(0, ['a', 'b'], value as never));
    rejects('out', () => table.lookupMany(0, ['a', 'b'], 'read', 1, value as never));
  }
  for (const value of ['find', 1, null, undefined]) {
    rejects('mode', () => table.lookupMany(0, ['a'], value as never, 1, out));
    rejects('state', () => table.setState(id, value as never));
  }
  for (const value of [Number.NaN, '1', null, undefined, 1n]) {
    rejects('until', () => table.lookupMany(0, ['a'], 'read', value as never, out));
    if (value !== undefined) rejects('endedBy', () => table.lookupMany(0, ['a'], 'lookup', 1, out, value as never));
    rejects('until', () => table.setLeaseUntil(id, value as never));
    rejects('until', () => table.setLookupUntil(id, value as never));
    rejects('until', () => table.setPinUntil(id, value as never));
    rejects('disk', () => table.setDisk(id, value as never));
    rejects('size', () => table.setSize(id, value as never));
    rejects('handle', () => table.setHandle(id, value as never));
  }
  for (const value of [-1n, 2n ** 64n, 1, '1', null, undefined])
    rejects('checksum', () => table.setChecksum(id, value as never));
  for (const value of [-1, 0.5, 2 ** 25, '0', null, undefined]) rejects('cursor', () => table.scan(value as never));
  for (const value of [0, -1, 1025, 0.5, '1', null]) rejects('most', () => table.scan(0, value as never));
  for (const value of [0, 65, 0.5, '1', null]) rejects('shards', () => new ObjectTable({ shards: value as never }));
  for (const value of [0, -1, 0.5, '9', null, Number.NaN])
    rejects('maxBytes', () => new ObjectTable({ maxBytes: value as never }));
  for (const value of [5, 'ab', null, undefined, { length: 1 }]) {
    rejects('ids', () => table.keys(value as never));
    rejects('ids', () => table.touchMany(value as never));
  }
  rejects('id', () => table.keys([id, 0]));
  rejects('options', () => new ObjectTable(5 as never));
  assert.equal(table.stats(), before);
  assert.is(table.find(0, 'kept'), id);
});

test('packed keys that are changed after their check are refused', () => {
  const table = new ObjectTable({ shards: 2 });
  const out = new Float64Array(2);
  for (const ends of [
    [5, 3],
    [0, 6],
    [3, 0],
    [1, 2 ** 32 - 1],
    [70_000, 70_006],
  ]) {
    const keys = Keys.from(['abc', 'def']);
    keys.offsets.set(ends, 1);
    rejects('keys', () => table.insertMany(0, keys, out));
  }
  const short = Keys.from(['abc', 'def']);
  structuredClone(short.bytes.buffer, { transfer: [short.bytes.buffer] });
  rejects('keys', () => table.findMany(0, short, out));
});

test.run();
