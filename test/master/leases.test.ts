// Leases: what a read or a lookup protects, for how long, and that bytes under a lease are handed to nobody.
import { Keys } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, start } from './support.js';

test('a read protects from removal for one TTL from the last read on', () => {
  const { clock, put, read, remove } = start(1000);
  put('a', 10);
  read('a');
  clock.now += 60;
  read('a');
  clock.now += 99;
  assert.is(remove('a'), -706);
  clock.now += 1;
  assert.equal([remove('a'), remove('a')], [0, -704]);
});

test('a lookup protects for one TTL from its first grant on; more of them do not prolong it', () => {
  const { clock, put, has, remove } = start(1000);
  put('a', 10);
  for (let i = 0; i < 10; i++, clock.now += 10) assert.equal([has('a'), remove('a')], [1, -706]);
  assert.is(remove('a'), 0);
  put('b', 10);
  has('b');
  clock.now += 100;
  has('b');
  assert.is(remove('b'), -706, 'one that comes after the end is a first one again');
});

test('peek protects nothing and counts as nothing', () => {
  const { service, put, peek, remove } = start(1000);
  put('a', 10);
  const before = service.stats();
  assert.ok(peek('a') && !peek('b'));
  assert.equal(service.stats(), before);
  assert.is(remove('a'), 0);
});

test('a lookup is no use: what is read stays longer than what is only looked up', () => {
  const { clock, put, has, read, peek } = start(300);
  for (const name of ['a', 'b', 'c']) put(name, 100);
  read('a');
  has('b');
  clock.now += 100;
  put('d', 100);
  assert.equal(
    ['a', 'b', 'c', 'd'].map((name) => peek(name)),
    [true, false, true, true],
  );
});

test('objects protected by lookups alone go when nothing else is left, the least recently used first', () => {
  const { service, put, has, read, peek, begin, status } = start(300);
  for (const name of ['a', 'b', 'c']) put(name, 100);
  for (const name of ['c', 'b', 'a']) has(name);
  read('a');
  put('d', 100);
  assert.equal(
    ['a', 'b', 'c', 'd'].map((name) => peek(name)),
    [true, false, true, true],
  );
  put('e', 100);
  assert.equal(
    ['a', 'c', 'd', 'e'].map((name) => peek(name)),
    [true, true, false, true],
    'd was free, c looked up',
  );
  for (const name of ['c', 'e']) read(name);
  assert.is(status(begin('f', 100)), -200, 'reads protect always');
  assert.is(service.stats().fruitlessEvictions, 2);
});

test('probes of every object, without end, do not freeze the store', () => {
  const { service, clock, keys, put } = start(1000, { evictionHighWatermark: 0.9, evictionRatio: 0.05 });
  for (let i = 0; i < 1000; i++) {
    assert.is(put(`key-${i}`, 10), 0);
    service.exist(keys(...Array.from({ length: i + 1 }, (_, k) => `key-${k}`).slice(-200)));
    clock.now += 1;
  }
  assert.ok(service.stats().evictedObjects >= 900);
  assert.is(service.stats().fruitlessEvictions, 0);
});

test('bytes of a removed object are handed to nobody while a lease that was given for them lasts', () => {
  const { service, clock, put, read, remove, begin, status, has } = start(1000);
  put('a', 1000);
  read('a');
  assert.equal([remove('a'), remove('a', true), has('a')], [-706, 0, 0]);
  assert.is(status(begin('b', 1)), -200);
  assert.equal([service.stats().usedBytes, service.stats().keptBackBytes], [1000, 1000]);
  clock.now += 99;
  assert.is(status(begin('b', 1)), -200);
  clock.now += 1;
  assert.is(status(begin('b', 1000)), 0);
});

test('a lookup says nothing of where bytes are: they are free at once', () => {
  const { put, has, remove, begin, status } = start(1000);
  put('a', 1000);
  has('a');
  assert.is(remove('a', true), 0);
  assert.is(status(begin('b', 1000)), 0);
});

test('a TTL of 0 protects nothing', () => {
  const { put, read, has, remove } = start(1000, { leaseTtlMs: 0 });
  put('a', 10);
  read('a');
  has('a');
  assert.is(remove('a'), 0);
});

test('every miss has its reason, in the answer and in the counters', () => {
  const { service, clock, put, begin, read, has, remove } = start(300, { tenants: { default: {} } });
  for (const name of ['a', 'b', 'c', 'd']) put(name, 100);
  remove('b');
  begin('e', 100);
  const why = (name: string, tenant?: string) => {
    const outcome = read(name, tenant);
    return outcome.ok ? 'found' : outcome.why;
  };
  const names = ['a', 'b', 'c', 'e', 'never'];
  assert.equal(
    names.map((name) => why(name)),
    ['evicted', 'removed', 'found', 'incomplete', 'absent'],
  );
  assert.is(why('a', 'stranger'), 'unknown-tenant');
  has('a');
  clock.now += 100;
  const { lookups, hits, misses } = service.stats();
  assert.equal({ lookups, hits }, { lookups: 7, hits: 1 });
  assert.equal(misses, { absent: 1, evicted: 2, removed: 1, incomplete: 1, 'unknown-tenant': 1 });
});

test('the memory of what was lost is bounded; what it forgets is absent', () => {
  const { put, remove, read } = start(1000, { recentLosses: 16 });
  for (let i = 0; i < 1000; i++) {
    put(`key-${i}`, 1);
    remove(`key-${i}`);
  }
  const reasons = Array.from({ length: 1000 }, (_, i) => {
    const outcome = read(`key-${i}`);
    return outcome.ok ? '' : outcome.why;
  });
  const known = reasons.filter((reason) => reason === 'removed').length;
  assert.ok(known > 0 && known <= 16, `${known}`);
  assert.is(reasons[999], 'removed');
});

test('of 200,000 keys that never were none is taken for one of 100,000 that were removed', () => {
  const { service } = start(2 ** 30, { recentLosses: 2 ** 20 });
  const names = (word: string, count: number) => Keys.from(Array.from({ length: count }, (_, i) => `${word}-${i}`));
  const lost = names('key', 100_000);
  service.putStart(ALICE, lost, new Float64Array(lost.length).fill(1), {});
  service.putEnd(ALICE, lost, Array(lost.length).fill(undefined));
  service.remove(lost);
  const reasons = (of: typeof lost) => service.peek(of).map((outcome) => outcome.ok || outcome.why);
  const removed = reasons(lost).filter((why) => why === 'removed').length;
  assert.ok(removed > 99_900, `${removed} are remembered: hardly a bucket is full`);
  assert.equal([...new Set(reasons(names('other', 200_000)))], ['absent']);
});

test.run();
