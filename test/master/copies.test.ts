/** Copies and moves of readable objects: what they need, what they leave, and what happens to them when things go. */
import { STATUS } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start } from './support.js';

const RELEASE_MS = 5000;

/** Segments 1 and 2 of Alice, 3 of Bob, 1,000 bytes each; `a` has 100 bytes in the first. */
function world() {
  const made = start(1000, { putReleaseMs: RELEASE_MS, putDiscardMs: 1000 });
  const { service } = made;
  service.mountSegment(segment(2, 1000), ALICE);
  service.mountSegment(segment(3, 1000), BOB);
  made.put('a', 100, { preferredSegments: ['segment-1'] });
  const call = (kind: 'copy' | 'move', name: string, client: string) =>
    ({ kind, client, key: new TextEncoder().encode(name), tenant: 'default' }) as const;
  const begin = (kind: 'copy' | 'move', name: string, from: number, to: number[], client = BOB) => {
    const targets = to.map((number) => `segment-${number}`);
    const plan = service.copies.start({ ...call(kind, name, client), source: `segment-${from}`, targets });
    return plan.ok ? plan.value.targets.length : plan.status;
  };
  return {
    ...made,
    copy: (name: string, from: number, to: number[], client?: string) => begin('copy', name, from, to, client),
    move: (name: string, from: number, to: number, client?: string) => begin('move', name, from, [to], client),
    endCopy: (name: string, client = BOB) => service.copies.end(call('copy', name, client)),
    endMove: (name: string, client = BOB) => service.copies.end(call('move', name, client)),
    revokeCopy: (name: string, client = BOB) => service.copies.revoke(call('copy', name, client)),
    where: (name: string) => made.place(name).map((one) => Number.parseInt(one.segment.slice(-3), 16)),
    used: (number: number) => service.segments().find(({ name }) => name === `segment-${number}`)?.usedBytes,
    unmount: (number: number) => service.unmountSegment(segment(number, 0).id, number === 3 ? BOB : ALICE),
  };
}

test('a copy is offered when it has ended, and not before', () => {
  const { copy, endCopy, where, service } = world();
  assert.is(copy('a', 1, [2, 3]), 2);
  assert.equal(where('a'), [1]);
  assert.is(service.copies.count, 1);
  assert.is(endCopy('a'), 0);
  assert.equal(where('a'), [1, 2, 3]);
  assert.is(service.stats().tenants.default.usedBytes, 300);
});

test('a move takes the source away; who reads it may go on until the lease ends', () => {
  const { move, endMove, where, read, used, clock, service } = world();
  assert.is(move('a', 1, 2), 1);
  assert.ok(read('a').ok);
  assert.is(endMove('a'), 0);
  assert.equal(where('a'), [2]);
  assert.is(used(1), 100);
  clock.now += 100;
  service.tick();
  assert.is(used(1), 0);
});

test('what is copied is not evicted, removed, replaced or cleared, and may be again afterwards', () => {
  const { copy, endCopy, put, peek, remove, status, beginUpsert, service, keys, clock, end } = world();
  assert.is(copy('a', 1, [2]), 1);
  put('b', 900, { preferredSegments: ['segment-1'] });
  put('c', 900, { preferredSegments: ['segment-2'] });
  put('d', 900, { preferredSegments: ['segment-3'] });
  put('e', 900);
  assert.ok(peek('a'));
  assert.is(remove('a'), STATUS.notReady);
  assert.is(status(beginUpsert('a', 100)), STATUS.hasTask);
  assert.is(service.clearReplicas(ALICE, keys('a'), 'segment-1')[0], STATUS.notReady);
  assert.is(copy('a', 1, [3], ALICE), STATUS.hasTask);
  assert.is(end('a'), 0, 'the repeated end of its put');
  assert.is(endCopy('a'), 0);
  clock.now += 1000;
  for (const name of ['f', 'g', 'h', 'i']) put(name, 950);
  assert.not(peek('a'), 'evicted like any other');
});

test('a forced removal leaves the space to a late writer, and refuses a late end', () => {
  const { copy, endCopy, remove, used, clock, put, peek, where, service } = world();
  copy('a', 1, [2]);
  assert.is(remove('a', true), 0);
  assert.is(used(2), 100);
  put('a', 100, { preferredSegments: ['segment-1'] });
  // The client may still be at the first copy: its end could not be told from that of the second.
  assert.is(copy('a', 1, [2]), STATUS.hasTask);
  assert.is(copy('a', 1, [2], ALICE), 1);
  assert.is(endCopy('a'), STATUS.notOwner);
  assert.equal(where('a'), [1]);
  assert.is(endCopy('a', ALICE), 0);
  assert.is(copy('a', 1, [3]), 1, 'now it has said that it is done');
  clock.now += RELEASE_MS;
  service.tick();
  assert.is(used(2), 100, 'the copy that is there');
  assert.ok(peek('a'));
});

test('one that does not end in time comes to nothing, and its space is free', () => {
  const { copy, endCopy, used, clock, service, where } = world();
  copy('a', 1, [2]);
  clock.now += RELEASE_MS - 1;
  service.tick();
  assert.is(used(2), 100);
  clock.now += 1;
  service.tick();
  assert.is(used(2), 0);
  assert.is(endCopy('a'), STATUS.noTask);
  assert.equal(where('a'), [1]);
});

test('the client that is copying is gone', () => {
  const { copy, endCopy, used, service, remove } = world();
  copy('a', 1, [2]);
  service.copies.forget(BOB);
  assert.is(used(2), 100, 'it may have been only cut off');
  assert.is(endCopy('a'), STATUS.noTask);
  assert.is(remove('a'), 0);
});

test('segments go while objects in them are copied', () => {
  const source = world();
  source.copy('a', 1, [2]);
  source.unmount(1);
  assert.not(source.peek('a'));
  assert.is(source.endCopy('a'), STATUS.notFound);

  const other = world();
  other.copy('a', 1, [2]);
  other.endCopy('a');
  other.copy('a', 1, [3]);
  other.unmount(1);
  assert.is(other.endCopy('a'), STATUS.replicaGone);
  assert.equal(other.where('a'), [2]);
  assert.is(other.used(3), 0, 'its client has said that it is done');

  const target = world();
  target.copy('a', 1, [2, 3]);
  target.unmount(2);
  assert.is(target.endCopy('a'), STATUS.replicaGone);
  assert.equal(target.where('a'), [1, 3], 'what is left of it is good');

  const move = world();
  move.move('a', 1, 2);
  move.unmount(2);
  assert.is(move.endMove('a'), STATUS.replicaGone);
  assert.equal(move.where('a'), [1]);

  const needless = world();
  needless.copy('a', 1, [2]);
  needless.endCopy('a');
  assert.is(needless.move('a', 1, 2), 0, 'a copy is there');
  needless.unmount(2);
  assert.is(needless.endMove('a'), STATUS.replicaGone, 'the source is the last copy');
  assert.equal(needless.where('a'), [1]);
});

test('space: none is made by eviction, and quotas count copies but not moves', () => {
  const full = world();
  full.put('b', 950, { preferredSegments: ['segment-2'] });
  assert.is(full.copy('a', 1, [3, 2]), STATUS.noSpace);
  assert.is(full.used(3), 0);
  assert.ok(full.peek('b'));
  const made = start(1000, { tenants: { default: { quotaBytes: 150 } } });
  made.service.mountSegment(segment(2, 1000), ALICE);
  made.put('a', 100, { preferredSegments: ['segment-1'] });
  const request = {
    client: BOB,
    key: Uint8Array.of(97),
    tenant: 'default',
    source: 'segment-1',
    targets: ['segment-2'],
  };
  const copy = made.service.copies.start({ kind: 'copy', ...request });
  assert.is(copy.ok ? 0 : copy.status, STATUS.quotaExceeded);
  assert.ok(made.service.copies.start({ kind: 'move', ...request }).ok);
  assert.is(made.service.copies.end({ kind: 'move', ...request }), 0);
  assert.is(made.service.stats().tenants.default.usedBytes, 100);
});

test('arguments that no caller should send are named', () => {
  const { service } = world();
  const good = {
    kind: 'copy',
    client: BOB,
    key: Uint8Array.of(97),
    tenant: 'default',
    source: 's',
    targets: [],
  } as const;
  const bad = { client: 'x', key: new Uint8Array(0), source: 7, targets: [7] };
  for (const [field, value] of Object.entries(bad)) {
    assert.throws(
      () => service.copies.start({ ...good, [field]: value } as never),
      (error: Error & { code: string }) => error.code === 'ERR_INVALID_ARGUMENT' && error.message.includes(field),
      field,
    );
  }
  assert.throws(() => service.copies.end({ ...good, client: '' }), /client/);
});

test.run();
