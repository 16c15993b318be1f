// Pins: soft ones hold for a time and give way when nothing else can go, hard ones hold until they are removed.
import { Keys } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, start } from './support.js';

test('a soft-pinned object goes when nothing else can', () => {
  const { service, clock, put, has, peek } = start(300);
  put('pinned', 100, { softPin: 'enable' });
  put('a', 100);
  put('b', 100);
  put('c', 100);
  assert.equal(
    ['pinned', 'a'].map((name) => peek(name)),
    [true, false],
  );
  for (const name of ['b', 'c']) has(name);
  put('d', 100);
  assert.equal(
    ['pinned', 'b', 'c'].map((name) => peek(name)),
    [true, false, true],
    'before it what is looked up',
  );
  service.getReplicas(Keys.from(['c', 'd']));
  put('e', 100);
  assert.equal(
    ['pinned', 'c', 'd', 'e'].map((name) => peek(name)),
    [false, true, true, true],
  );
  clock.now += 100;
});

test('a soft pin starts when the object becomes readable; reads do not prolong it', () => {
  const { clock, begin, end, read, put, peek } = start(300, { softPinTtlMs: 500 });
  begin('pinned', 100, { softPin: 'enable' });
  clock.now += 400;
  end('pinned');
  put('a', 100);
  put('b', 100);
  clock.now += 399;
  read('pinned');
  clock.now += 100;
  put('c', 100);
  assert.equal(
    ['pinned', 'a'].map((name) => peek(name)),
    [true, false],
  );
  clock.now += 1;
  put('d', 100);
  assert.equal(
    ['pinned', 'b'].map((name) => peek(name)),
    [true, false],
    'its pin ended; b is older',
  );
  put('e', 100);
  assert.equal(
    ['pinned', 'c'].map((name) => peek(name)),
    [false, true],
    'as old as its last read',
  );
});

test('soft pins may be told to hold like hard ones', () => {
  const { put, status, begin } = start(300, { allowEvictSoftPinned: false });
  put('pinned', 300, { softPin: 'enable' });
  assert.is(status(begin('a', 1)), -200);
});

test('a store full of hard-pinned objects refuses, serves, and takes again what is removed', () => {
  const { service, clock, put, begin, status, read, remove } = start(300);
  for (const name of ['a', 'b', 'c']) put(name, 100, { hardPin: true });
  for (let i = 0; i < 3; i++) assert.is(status(begin('d', 100)), -200);
  assert.is(service.stats().objects, 3);
  assert.ok(read('a').ok);
  clock.now += 1e9;
  assert.is(status(begin('d', 100)), -200);
  assert.is(remove('a'), 0);
  assert.is(status(begin('d', 100)), 0);
});

test('an upsert preserves, renews or ends a soft pin, and preserves a hard one', () => {
  const size = (round: number) => 40 + round;
  const survives = (softPin: 'preserve' | 'enable' | 'disable', wait: number, hardPin = false) => {
    const { clock, put, upsert, peek } = start(300, { softPinTtlMs: 500 });
    put('pinned', size(0), { softPin: 'enable', hardPin });
    clock.now += 300;
    assert.is(upsert('pinned', size(1), { softPin }), 0);
    clock.now += wait;
    put('a', 200);
    put('b', 200);
    return peek('pinned');
  };
  assert.equal([survives('preserve', 199), survives('preserve', 200)], [true, false]);
  assert.equal([survives('enable', 499), survives('enable', 500)], [true, false]);
  assert.equal([survives('disable', 0), survives('disable', 1000, true)], [false, true]);
});

test('a soft pin that is longer than allowed is refused, and the longest is taken', () => {
  const { service, put } = start(1000, { maxSoftPinTtlMs: 1000, softPinTtlMs: 500 });
  assert.is(put('a', 1, { softPin: 'enable', softPinTtlMs: 1000 }), 0);
  assert.throws(() => put('b', 1, { softPin: 'enable', softPinTtlMs: 1001 }), /softPinTtlMs must be an integer from 1/);
  assert.is(service.putRevoke(ALICE, Keys.from(['b']))[0], -704);
});

test.run();
