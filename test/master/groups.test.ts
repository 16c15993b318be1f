// Groups: members are protected together and evicted together.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, start } from './support.js';

test('eviction takes the members that may go together', () => {
  const { service, put, read, peek } = start(500, { evictionRatio: 0.01 });
  for (const name of ['a', 'b', 'c']) put(name, 100, { groups: 'g' });
  for (const name of ['x', 'y']) put(name, 100);
  assert.is(put('z', 100), 0);
  assert.equal(
    ['a', 'b', 'c', 'x', 'y'].map((name) => peek(name)),
    [false, false, false, true, true],
  );
  assert.is(service.stats().evictedObjects, 3);
  assert.ok(read('x').ok);
});

test('a member that is pinned or being written stays', () => {
  const { put, begin, end, peek } = start(400);
  put('a', 100, { groups: 'g' });
  put('pinned', 100, { groups: 'g', hardPin: true });
  begin('open', 100, { groups: ['g'] });
  put('b', 100, { groups: 'g' });
  put('x', 100);
  assert.equal(
    ['a', 'b', 'pinned', 'x'].map((name) => peek(name)),
    [false, false, true, true],
  );
  assert.is(end('open'), 0);
});

test('a lookup of one member protects all, and so does a read, which is a use of all', () => {
  const { service, clock, put, has, read, remove, peek } = start(400);
  for (const name of ['a', 'b']) put(name, 100, { groups: 'g' });
  put('x', 100);
  has('a');
  assert.equal([remove('b'), remove('x')], [-706, 0]);
  clock.now += 100;
  put('x', 100);
  put('y', 100);
  read('b');
  assert.is(remove('a'), -706);
  clock.now += 100;
  put('z', 100);
  assert.equal(
    ['a', 'b', 'x', 'y'].map((name) => peek(name)),
    [true, true, false, true],
  );
  assert.is(service.stats().evictedObjects, 1);
});

test('groups of one name are different groups in different tenants', () => {
  const { put, has, remove } = start(500);
  put('a', 100, { groups: 'g' }, 'one');
  put('b', 100, { groups: 'g' }, 'two');
  has('a', 'one');
  assert.equal([remove('a', false, 'one'), remove('b', false, 'two')], [-706, 0]);
});

test('an object keeps its group; a name of none or of another is refused', () => {
  const { service, keys, put, status, beginUpsert } = start(1000);
  put('a', 100, { groups: 'g' });
  put('b', 100);
  assert.is(status(beginUpsert('a', 50, { groups: 'h' })), -600);
  assert.is(status(beginUpsert('b', 50, { groups: 'new' })), -600);
  assert.is(status(beginUpsert('a', 50, { groups: 'g' })), 0);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [undefined]), [0]);
  assert.is(status(beginUpsert('a', 60)), 0, 'without a name it keeps the one that it has');
});

test('a group whose members are gone is forgotten, and its name is free', () => {
  const { put, has, remove, peek } = start(1000);
  for (let round = 0; round < 3; round++) {
    put('a', 100, { groups: 'g' });
    assert.is(remove('a'), 0);
    put('b', 100, { groups: 'h' });
    has('b');
    assert.is(put('c', 100, { groups: 'g' }), 0);
    assert.is(remove('c'), 0, 'b is of another group, whatever number it has');
    assert.is(remove('b', true), 0);
  }
  assert.is(peek('a'), false);
});

test.run();
