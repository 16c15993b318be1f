// Upserts: readers get the old content until the end, unless nobody can be reading it and the new takes its very space.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start } from './support.js';

test('of a key that does not exist an upsert is a put', () => {
  const { upsert, read } = start(1000);
  assert.is(upsert('a', 100), 0);
  assert.ok(read('a').ok);
});

test('the old content is served until the upsert ends, and its bytes stay until its readers are done', () => {
  const { service, clock, keys, put, read, beginUpsert, place, begin, status } = start(1000);
  put('a', 300);
  const [old] = place('a');
  read('a');
  clock.now += 10;
  const outcome = beginUpsert('a', 300);
  assert.ok(outcome.ok && outcome.value[0].offset !== old.offset, 'a lease is active: the space is not reused');
  assert.equal(place('a'), [old]);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [7n]), [0]);
  const fresh = service.peek(keys('a'))[0];
  assert.ok(fresh.ok && fresh.value.checksum === 7n && fresh.value.replicas[0].offset !== old.offset);
  assert.is(service.stats().keptBackBytes, 300);
  assert.is(status(begin('b', 701)), -200);
  clock.now += 90;
  assert.is(status(begin('b', 400)), 0);
  assert.is(service.stats().keptBackBytes, 0);
});

test('the same size without a lease reuses the space; the object cannot be read meanwhile', () => {
  const { service, keys, put, read, beginUpsert, place } = start(1000);
  put('a', 600);
  const [old] = place('a');
  const outcome = beginUpsert('a', 600);
  assert.ok(outcome.ok && outcome.value[0].offset === old.offset);
  const missed = read('a');
  assert.is(!missed.ok && missed.status, -703);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [undefined]), [0]);
  assert.equal(place('a'), [old]);
  assert.is(service.stats().usedBytes, 600);
});

test('a revoked upsert keeps the old content where it had space of its own, and loses the object where not', () => {
  const { service, keys, put, beginUpsert, place, peek } = start(1000);
  put('a', 300);
  const old = place('a');
  beginUpsert('a', 200);
  assert.equal(service.upsertRevoke(ALICE, keys('a')), [0]);
  assert.equal(place('a'), old);
  beginUpsert('a', 300);
  assert.equal(service.upsertRevoke(ALICE, keys('a')), [0]);
  assert.is(peek('a'), false);
  assert.is(service.stats().usedBytes, 0);
});

test('a second upsert of the same client waits for the first; that of another preempts it', () => {
  const { service, clock, keys, put, beginUpsert, status } = start(1000);
  put('a', 100);
  assert.is(status(beginUpsert('a', 200)), 0);
  assert.is(status(beginUpsert('a', 210)), -703);
  assert.is(status(beginUpsert('a', 220, {}, BOB)), 0);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [undefined]), [-601]);
  assert.equal(service.upsertEnd(BOB, keys('a'), [undefined]), [0]);
  assert.is(service.stats().keptBackBytes, 200, 'the first may still be writing');
  clock.now += 600_000;
  assert.equal([service.stats().keptBackBytes, service.stats().usedBytes], [0, 220]);
});

test('an upsert that never ends leaves the old content', () => {
  const { service, clock, put, beginUpsert, place } = start(1000);
  put('a', 100);
  const old = place('a');
  beginUpsert('a', 200);
  clock.now += 600_000;
  service.tick();
  assert.equal(place('a'), old);
  assert.equal([service.stats().usedBytes, service.stats().discardedPuts], [100, 1]);
});

test('the end of an upsert that came to nothing is refused, also to the one who put what is still served', () => {
  const ways: [string, (s: ReturnType<typeof start>) => void][] = [
    ['discarded', ({ clock }) => (clock.now += 600_000)],
    ['revoked', ({ service, keys }) => service.upsertRevoke(ALICE, keys('a'))],
    ['its segment unmounted', ({ service }) => service.unmountSegment(segment(2, 0).id, ALICE)],
    [
      'preempted, and the other revoked',
      ({ service, keys, beginUpsert }) => {
        beginUpsert('a', 210, {}, BOB);
        service.upsertRevoke(BOB, keys('a'));
      },
    ],
  ];
  for (const [way, lose] of ways) {
    const context = start(1000);
    const { service, keys, put, end, beginUpsert, place } = context;
    service.mountSegment(segment(2, 1000), ALICE);
    put('a', 100, { preferredSegments: ['segment-1'] });
    const old = place('a');
    assert.ok(beginUpsert('a', 200, { preferredSegments: ['segment-2'] }).ok);
    lose(context);
    assert.is(end('a'), -601, way);
    assert.equal(place('a'), old, way);
    service.upsertEnd(ALICE, keys('a'), [undefined]);
    assert.is(end('a', BOB), -601, way);
  }
});

test('what can never fit preempts nobody', () => {
  const { clock, begin, beginUpsert, end, status } = start(1000, { tenants: { default: { quotaBytes: 800 } } });
  begin('a', 100);
  assert.is(status(beginUpsert('a', 801, {}, BOB)), -1700);
  assert.is(status(beginUpsert('a', 401, { replicas: 2 }, BOB)), -1700);
  clock.now += 30_000;
  assert.is(status(begin('a', 801, {}, BOB)), -1700);
  assert.is(end('a'), 0);
});

test('room for an upsert may cost the very object; then it is a put', () => {
  const { service, keys, put, beginUpsert, peek, status } = start(1000);
  put('a', 600, { groups: 'g' });
  assert.is(status(beginUpsert('a', 700)), 0);
  assert.is(peek('a'), false);
  assert.is(service.stats().evictedObjects, 1);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [undefined]), [0]);
  assert.is(peek('a'), true);
});

test('without room the old content stays', () => {
  const { put, read, beginUpsert, status, place } = start(1000);
  put('a', 600);
  read('a');
  const old = place('a');
  assert.is(status(beginUpsert('a', 700)), -200);
  assert.is(status(beginUpsert('a', 600)), -200);
  assert.equal(place('a'), old);
});

test('a size that changes is charged before the old one is credited', () => {
  const { service, keys, put, beginUpsert, status } = start(1000, { tenants: { default: { quotaBytes: 500 } } });
  put('a', 300, { hardPin: true });
  assert.is(status(beginUpsert('a', 201)), -1700);
  assert.is(status(beginUpsert('a', 200)), 0);
  assert.is(service.stats().tenants.default.usedBytes, 500);
  service.upsertEnd(ALICE, keys('a'), [undefined]);
  assert.is(service.stats().tenants.default.usedBytes, 200);
});

test('an object that is removed while it is being replaced is gone, and the upsert with it when forced', () => {
  const { service, keys, put, beginUpsert, remove, has } = start(1000);
  put('a', 100);
  beginUpsert('a', 200);
  assert.equal([remove('a'), remove('a', true)], [-703, 0]);
  assert.is(has('a'), 0);
  assert.equal(service.upsertEnd(ALICE, keys('a'), [undefined]), [-704]);
  assert.is(service.stats().keptBackBytes, 200);
});

test.run();
