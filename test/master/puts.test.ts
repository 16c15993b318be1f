// Two phases: what is reserved is not visible, what ended is, and what never ends gives its space back when it is safe.
import { MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start } from './support.js';

test('an object is readable from the end of its put on, with what the writer said of it', () => {
  const { service, keys, begin, end, read, has, place } = start(1000);
  const outcome = begin('a', 300);
  assert.ok(outcome.ok);
  if (!outcome.ok) return;
  const [replica] = outcome.value;
  assert.is(replica.state, 'processing');
  assert.is(replica.segmentName, 'segment-1');
  assert.equal([replica.size, replica.offset + 300 <= 1000], [300, true]);
  assert.equal([has('a'), read('a')], [0, { ok: false, status: -703, why: 'incomplete' }]);
  assert.is(end('a', ALICE, undefined, 2n ** 64n - 1n), 0);
  const found = service.getReplicas(keys('a'))[0];
  assert.equal(found, {
    ok: true,
    value: {
      replicas: [{ ...replica, state: 'complete' }],
      size: 300,
      checksum: 2n ** 64n - 1n,
      leaseMs: 100,
    },
  });
  assert.equal(place('a'), [{ segment: replica.segment, offset: replica.offset, size: 300 }]);
  assert.is(has('a'), 1);
});

test('a key that exists, readable or being written, is -705; in a batch each key has its own answer', () => {
  const { service, keys, put, begin, status } = start(1000);
  assert.is(put('a', 10), 0);
  assert.is(status(begin('a', 10)), -705);
  assert.is(status(begin('b', 10)), 0);
  assert.is(status(begin('b', 10, {}, BOB)), -705);
  const sizes = Float64Array.of(10, 10, 10, 0, 5000);
  const outcomes = service.putStart(ALICE, keys('a', 'c', 'c', 'd', 'e'), sizes, {}, 'default');
  assert.equal(outcomes.map(status), [-705, 0, -705, -600, -200]);
});

test('sizes that are none, and sizes that no segment could ever hold', () => {
  const { service, begin, status, put } = start(1000);
  assert.is(put('kept', 900), 0);
  for (const size of [0, -1, 0.5, Number.NaN, Infinity, 2 ** 53]) assert.is(status(begin('a', size)), -600, `${size}`);
  assert.is(status(begin('a', 1001)), -200);
  assert.is(service.stats().evictedObjects, 0, 'nothing goes for what cannot be stored anyway');
  assert.is(service.stats().incomplete, 0);
});

test('without segments nothing can be put', () => {
  const { service, begin, status, has } = start(1000);
  assert.is(service.unmountSegment(segment(1, 1000).id, ALICE), 0);
  assert.is(status(begin('a', 1)), -200);
  assert.is(has('a'), 0);
});

test('only who started a put may end or revoke it', () => {
  const { begin, end, revoke, has } = start(1000);
  begin('a', 10);
  assert.equal([end('a', BOB), revoke('a', BOB), end('other')], [-601, -601, -704]);
  assert.is(revoke('other'), -704);
  assert.is(end('a'), 0);
  assert.is(end('a'), 0, 'an end whose answer was lost is sent again');
  assert.equal([end('a', BOB), revoke('a'), has('a')], [-601, -700, 1]);
});

test('a revoked put leaves nothing behind', () => {
  const { service, begin, revoke, read } = start(1000);
  begin('a', 1000);
  assert.is(revoke('a'), 0);
  assert.is(service.stats().usedBytes, 0);
  assert.equal(read('a'), { ok: false, status: -704, why: 'absent' });
  assert.ok(begin('b', 1000).ok);
});

test('a put may be preempted after 30 s; its space is kept back until 600 s after its start', () => {
  const { service, clock, begin, end, status } = start(1000, { evictionHighWatermark: 1 });
  const first = begin('a', 600);
  clock.now += 29_999;
  assert.is(status(begin('a', 400, {}, BOB)), -705);
  clock.now += 1;
  const second = begin('a', 400, {}, BOB);
  assert.ok(first.ok && second.ok);
  if (first.ok && second.ok) {
    const [old, fresh] = [first.value[0], second.value[0]];
    assert.ok(fresh.offset >= old.offset + 600 || old.offset >= fresh.offset + 400, 'where a late write cannot land');
  }
  assert.equal([end('a', ALICE), end('a', BOB)], [-601, 0]);
  assert.equal([service.stats().discardedPuts, service.stats().keptBackBytes], [1, 600]);
  assert.is(status(begin('b', 500)), -200, 'also when the space is wanted: a late write would be in it');
  clock.now = 1000 + 599_999;
  assert.is(status(begin('b', 700)), -200);
  clock.now = 1000 + 600_000;
  assert.is(status(begin('b', 600)), 0);
  assert.is(service.stats().keptBackBytes, 0);
});

test('a put that never ends is discarded after 600 s', () => {
  const { service, clock, begin, end } = start(1000);
  begin('a', 1000);
  clock.now += 599_999;
  service.tick();
  assert.is(service.stats().incomplete, 1);
  clock.now += 1;
  service.tick();
  assert.equal([service.stats().incomplete, service.stats().discardedPuts, service.stats().usedBytes], [0, 1, 0]);
  assert.is(end('a'), -704);
});

test('a clock that is set back ends no put and no lease early, and brings none back', () => {
  const { clock, put, read, remove } = start(1000);
  put('a', 10);
  read('a');
  clock.now += 50;
  assert.is(remove('a'), -706);
  clock.now = 0;
  assert.is(remove('a'), -706);
  clock.now = 1100;
  assert.is(remove('a'), 0);
});

test('what no caller should send is refused by name, and nothing has changed', () => {
  const { service, keys } = start(1000);
  const one = keys('a');
  const size = Float64Array.of(1);
  const refused = (argument: string, call: () => unknown) => {
    try {
      call();
    } catch (error) {
      assert.instance(error, MooncakeError);
      assert.equal(
        [(error as MooncakeError).code, (error as MooncakeError).argument],
        ['ERR_INVALID_ARGUMENT', argument],
      );
      return;
    }
    assert.unreachable(argument);
  };
  refused('client', () => service.putStart('alice', one, size, {}, 'default'));
  refused('client', () => service.putStart(ALICE.toUpperCase(), one, size, {}, 'default'));
  refused('keys', () => service.putStart(ALICE, ['a'] as never, size, {}, 'default'));
  refused('sizes', () => service.putStart(ALICE, one, Float64Array.of(1, 2), {}, 'default'));
  refused('sizes', () => service.putStart(ALICE, one, [1] as never, {}, 'default'));
  refused('tenant', () => service.putStart(ALICE, one, size, {}, 5 as never));
  refused('tenant', () => service.putStart(ALICE, one, size, {}, 'x'.repeat(1025)));
  for (const [argument, config] of [
    ['config', null],
    ['config.replicas', { replicas: 0 }],
    ['config.replicas', { replicas: 1.5 }],
    ['config.softPin', { softPin: 'yes' }],
    ['config.softPinTtlMs', { softPinTtlMs: 86_400_001 }],
    ['config.hardPin', { hardPin: 1 }],
    ['config.preferredSegments', { preferredSegments: 'segment-1' }],
    ['config.preferredSegments[0]', { preferredSegments: [1] }],
    ['config.groups', { groups: ['g', 'h'] }],
    ['config.groups[0]', { groups: [7] }],
    ['config.hostId', { hostId: 3 }],
  ] as const) {
    refused(argument, () => service.putStart(ALICE, one, size, config as never, 'default'));
  }
  refused('checksums', () => service.putEnd(ALICE, one, [], 'default'));
  refused('checksums[0]', () => service.putEnd(ALICE, one, [-1n], 'default'));
  refused('checksums[0]', () => service.putEnd(ALICE, one, [5 as never], 'default'));
  assert.equal([service.stats().incomplete, service.stats().usedBytes], [0, 0]);
});

test('a table that is full evicts, and without anything to evict refuses', () => {
  const { service, begin, status, put, has } = start(2 ** 40, { maxTableBytes: 2 ** 22 });
  let stored = 0;
  for (; service.stats().evictedObjects === 0; stored++) assert.is(put(`key-${stored}`, 1), 0);
  assert.is(has(`key-${stored - 1}`), 1);
  let open = 0;
  for (let outcome = begin(`open-${open}`, 1); outcome.ok; outcome = begin(`open-${open}`, 1)) open++;
  assert.is(status(begin('one more', 1)), -200);
  const { objects, incomplete, usedBytes } = service.stats();
  assert.equal([objects, incomplete, usedBytes], [0, open, open], 'nothing half-entered');
});

test.run();
