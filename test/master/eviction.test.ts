// Eviction: when it runs, how many go, and in which order.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { start } from './support.js';

const names = (count: number) => Array.from({ length: count }, (_, i) => `key-${i}`);

test('a put that would pass the watermark evicts a share of the objects first', () => {
  const { service, put, peek } = start(1000, { evictionHighWatermark: 0.9, evictionRatio: 0.05 });
  for (const name of names(90)) put(name, 10);
  assert.equal([service.stats().evictedObjects, service.stats().usedBytes], [0, 900]);
  put('one more', 10);
  const { evictedObjects, evictedBytes, evictions, objects } = service.stats();
  assert.equal(
    { evictedObjects, evictedBytes, evictions, objects },
    {
      evictedObjects: 5,
      evictedBytes: 50,
      evictions: 1,
      objects: 86,
    },
  );
  assert.equal(
    names(6).map((name) => peek(name)),
    [false, false, false, false, false, true],
  );
});

test('one run gives up 1,024 objects at most, so that no put waits for more', () => {
  const { service, put, peek } = start(5000, { evictionRatio: 1 });
  for (const name of names(5000)) put(name, 1);
  put('one more', 1);
  assert.is(service.stats().evictedObjects, 1024);
  assert.is(put('large', 5000), 0, 'runs go on until it fits');
  assert.is(peek('large'), true);
});

test('exactly the least recently used go, reads and puts counted as use', () => {
  const { clock, keys, service, put, read, peek } = start(500);
  for (const name of names(5)) put(name, 100);
  read('key-1');
  service.getReplicas(keys('key-3', 'key-0'), 'default');
  clock.now += 100;
  const gone: string[] = [];
  for (const fresh of ['a', 'b', 'c', 'd', 'e']) {
    const before = names(5).filter((name) => peek(name));
    put(fresh, 100);
    gone.push(...before.filter((name) => !peek(name)));
  }
  assert.equal(gone, ['key-2', 'key-4', 'key-1', 'key-3', 'key-0']);
});

test('an object that eviction passed over takes its place again when its protection has ended', () => {
  const { clock, put, read, has, peek } = start(300);
  for (const name of ['a', 'b', 'c']) put(name, 100);
  has('a');
  read('b');
  put('d', 100);
  assert.equal(
    ['a', 'b', 'c', 'd'].map((name) => peek(name)),
    [true, true, false, true],
  );
  clock.now += 100;
  put('e', 100);
  assert.equal(
    ['a', 'b', 'd', 'e'].map((name) => peek(name)),
    [false, true, true, true],
    'a was used before b and d',
  );
  put('f', 100);
  assert.equal(
    ['b', 'd', 'e', 'f'].map((name) => peek(name)),
    [false, true, true, true],
    'b was read before d was put',
  );
});

test('an object that was passed over and then read is as new', () => {
  const { clock, put, read, has, peek } = start(300);
  for (const name of ['a', 'b', 'c']) put(name, 100);
  has('a');
  put('d', 100);
  read('a');
  clock.now += 100;
  put('e', 100);
  put('f', 100);
  assert.equal(
    ['a', 'c', 'd', 'e', 'f'].map((name) => peek(name)),
    [true, false, false, true, true],
  );
});

test('eviction goes on until the object fits, or nothing may go', () => {
  const { service, put, read, begin, status } = start(1000);
  for (const name of names(10)) put(name, 100);
  assert.is(status(begin('large', 450)), 0);
  assert.is(service.stats().evictedObjects, 5);
  for (const name of names(10).slice(5)) read(name);
  assert.is(status(begin('too large', 300)), -200);
  assert.equal([service.stats().objects, service.stats().evictedObjects], [5, 5]);
});

test('free bytes that lie apart are no room: eviction runs below the watermark too', () => {
  const { service, clock, put, read, remove, begin, status } = start(1000);
  for (const name of names(10)) put(name, 100);
  for (const name of names(10).filter((_, i) => i % 2 === 0)) remove(name);
  assert.is(service.stats().usedBytes, 500);
  for (const name of names(10)) read(name);
  assert.is(status(begin('large', 150)), -200);
  clock.now += 100;
  assert.is(status(begin('large', 150)), 0);
});

test('what is being written does not go', () => {
  const { begin, status, put, end, peek } = start(300);
  begin('a', 100);
  begin('b', 100);
  put('c', 100);
  assert.is(put('d', 100), 0);
  assert.is(peek('c'), false);
  assert.is(status(begin('e', 200)), -200);
  assert.equal([end('a'), end('b')], [0, 0]);
});

test('tick evicts where the watermark is passed, as after an unmount', () => {
  const { service, put } = start(1000, { evictionHighWatermark: 0.5, evictionRatio: 0.1 });
  service.tick();
  assert.is(service.stats().evictions, 0);
  put('large', 600);
  assert.is(service.stats().usedBytes, 600);
  service.tick();
  assert.equal([service.stats().usedBytes, service.stats().evictedObjects], [0, 1]);
});

test('many protected objects, many runs: the order stays exact and entries do not pile up', () => {
  const { service, clock, keys, put, peek } = start(20_000, { evictionRatio: 0.001 });
  const all = names(20_000);
  for (const name of all) put(name, 1);
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < all.length; i += 1000) service.exist(keys(...all.slice(i, i + 1000)), 'default');
    service.getReplicas(keys(...all.slice(0, 500)), 'default');
    // One object in a thousand goes, of those that are looked up and not read.
    const [first, last] = [500 + 20 * round, 519 + 20 * round];
    assert.is(peek(all[first]), true);
    // A call passes over so many objects and no more: the first finds some thousands of them in its way.
    let calls = 1;
    while (put(`fresh-${round}`, 20) !== 0) assert.ok(++calls <= 20, 'each goes on where the one before it ended');
    if (round === 0) assert.ok(calls > 1);
    assert.equal(
      [first, last, last + 1].map((at) => peek(all[at])),
      [false, false, true],
    );
    all.push(`fresh-${round}`);
    clock.now += 50;
  }
  assert.ok(service.stats().metadataBytes < 60_000_000);
});

test('a run walks over no object that is being read', () => {
  const { service, keys, put } = start(5000);
  const names = Array.from({ length: 5000 }, (_, i) => `key-${i}`);
  for (const name of names) put(name, 1);
  service.getReplicas(keys(...names));
  const { metadataBytes } = service.stats();
  assert.is(put('one more', 1), -200);
  assert.is(service.stats().metadataBytes, metadataBytes, 'nothing was set aside');
});

test('protection that is renewed again and again leaves no entries behind', () => {
  const { service, clock, keys, put } = start(5000, { evictionRatio: 0.0001 });
  const names = Array.from({ length: 5000 }, (_, i) => `key-${i}`);
  for (const name of names) put(name, 1);
  // They come in the meantime, and are swept: what is there at most does not rise.
  const most = [0, 0];
  for (let round = 0; round < 120; round++) {
    service.exist(keys(...names));
    assert.is(put(`new-${round}`, 1), 0);
    clock.now += 101;
    const half = round < 60 ? 0 : 1;
    most[half] = Math.max(most[half], service.stats().metadataBytes);
  }
  assert.is(most[1], most[0]);
});

test.run();
