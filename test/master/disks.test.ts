/** Objects on disks of clients: what is offloaded when, who is believed, what eviction leaves, promotion, and disks that go. */
import { type DiskTask, Keys, type MetadataOptions, type Offloaded } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start } from './support.js';

const ENDPOINT = '127.0.0.1:7777';
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A service that offloads, with Alice's segment of `length` bytes, and her disk. */
function startWithDisk(length: number, options: MetadataOptions = {}) {
  const made = start(length, { offload: true, ...options });
  const { service } = made;
  const { disks } = service;
  assert.is(disks.mount(ALICE, true), 0);
  const names = (outcome: ReturnType<typeof disks.takeOffloads>) =>
    outcome.ok ? outcome.value.map(({ key }: DiskTask) => text(key)) : outcome.status;
  const note = (name: string, size: number, more: Partial<Offloaded> = {}, client = ALICE) =>
    disks.noteOffloads(client, [
      { tenant: 'default', key: new TextEncoder().encode(name), size, endpoint: ENDPOINT, written: true, ...more },
    ]);
  return {
    ...made,
    disks,
    note,
    take: (accepts = true, client = ALICE) => names(disks.takeOffloads(client, accepts)),
    takePromotions: (client = ALICE) => names(disks.takePromotions(client)),
    startPromotion: (name: string, size: number, client = ALICE) =>
      disks.startPromotion(client, Keys.from([name]), size, [], 'default'),
    endPromotion: (name: string, client = ALICE) => disks.endPromotion(client, Keys.from([name]), 'default'),
    failPromotion: (name: string, client = ALICE) => disks.failPromotion(client, Keys.from([name]), 'default'),
    evict: (name: string, client = ALICE) => disks.evict(client, Keys.from([name]), 'default')[0],
    /** Where its copies are, without reading it. */
    places(name: string): string {
      const [found] = service.peek(Keys.from([name]), 'default');
      if (!found.ok) return `${found.status}`;
      return [...found.value.replicas.map(({ kind }) => kind), ...(found.value.disk ? ['disk'] : [])].join(' ');
    },
  };
}

test('an object that was put is handed to the client that lends its memory, once, and is noted when it is written', () => {
  const { put, take, note, read, places, disks } = startWithDisk(1000);
  assert.is(put('a', 300), 0);
  assert.equal(take(), ['a']);
  assert.equal(take(), []);
  assert.is(places('a'), 'memory');
  assert.is(note('a', 300), 0);
  const found = read('a');
  assert.ok(found.ok);
  assert.equal({ ...found.value.disk, id: 0 }, { id: 0, kind: 'disk', client: ALICE, endpoint: ENDPOINT, size: 300 });
  assert.is(found.value.replicas.length, 1);
  const { disks: count, objects, objectsOnDiskAlone, usedBytes } = disks.stats();
  assert.equal([count, objects, objectsOnDiskAlone, usedBytes], [1, 1, 0, 300]);
});

test('without --enable_offload nobody lends a disk', () => {
  const { service } = start(1000);
  assert.is(service.disks.mount(ALICE, true), -1300);
  assert.is(service.disks.unmount(ALICE), -1300);
  assert.equal(service.disks.takeOffloads(ALICE, true).ok, false);
});

test('an object stays in memory until it is on the disk, then eviction takes its memory alone', () => {
  const { put, take, note, places, read, service, clock } = startWithDisk(1000);
  for (const name of ['a', 'b', 'c']) assert.is(put(name, 300), 0);
  assert.is(put('d', 300), -200);
  take();
  assert.is(put('d', 300), -200);
  assert.is(note('a', 300), 0);
  assert.is(put('d', 300), 0);
  assert.equal(['a', 'b', 'c', 'd'].map(places), ['disk', 'memory', 'memory', 'memory']);
  const found = read('a');
  assert.ok(found.ok && found.value.size === 300 && found.value.replicas.length === 0);
  const stats = service.stats();
  assert.equal([stats.objects, stats.usedBytes, stats.disks.objectsOnDiskAlone], [4, 900, 1]);
  assert.equal([stats.evictedObjects, stats.evictedBytes], [1, 300]);
  clock.now += 1000;
  assert.equal(service.exist(Keys.from(['a', 'b', 'x']), 'default'), Int32Array.of(1, 1, 0));
});

test('what a client cannot write is held no longer, and so is what it does not write in time', () => {
  const { put, take, note, places, clock } = startWithDisk(1000, { putDiscardMs: 10, putReleaseMs: 5000 });
  for (const name of ['a', 'b', 'c']) put(name, 300);
  take();
  note('b', 0, { written: false });
  assert.is(put('d', 300), 0);
  assert.is(places('b'), '-704');
  assert.is(put('e', 300), -200);
  clock.now += 5001;
  assert.is(put('e', 300), 0);
  note('a', 300);
  assert.is(places('a'), '-704', 'too late: its report is not believed');
});

test('a report about content that is gone is not believed', () => {
  const { put, upsert, remove, take, note, places } = startWithDisk(1000);
  put('removed', 100);
  put('replaced', 100);
  put('again', 100);
  take();
  remove('removed');
  upsert('replaced', 100);
  remove('again');
  put('again', 100);
  for (const name of ['removed', 'replaced', 'again']) note(name, 100);
  assert.equal(['removed', 'replaced', 'again'].map(places), ['-704', 'memory', 'memory']);
  assert.equal(take(), ['replaced', 'again']);
  for (const name of ['replaced', 'again']) note(name, 100);
  assert.equal(['replaced', 'again'].map(places), ['memory disk', 'memory disk']);
});

test('nor when its client has mounted its disk again meanwhile', () => {
  const { put, remove, take, note, places, disks } = startWithDisk(1000);
  for (const name of ['before', 'after', 'kept']) put(name, 100);
  assert.equal(take(), ['before', 'after', 'kept']);
  remove('before');
  disks.unmount(ALICE);
  remove('after');
  disks.mount(ALICE, true);
  for (const name of ['before', 'after', 'kept']) note(name, 100);
  assert.equal(['before', 'after', 'kept'].map(places), ['-704', '-704', 'memory']);
});

test('ssd_free_ratio_first: what comes next goes to the client whose disk has most left', () => {
  const { service, disks, note, put, read } = startWithDisk(1000, { allocationStrategy: 'ssd_free_ratio_first' });
  assert.is(service.mountSegment(segment(2, 1000), BOB), 0);
  assert.is(disks.mount(BOB, true), 0);
  for (const client of [ALICE, BOB]) disks.reportCapacity(client, 1000);
  const goesTo = (name: string) => {
    assert.is(put(name, 10), 0);
    const found = read(name);
    return found.ok && found.value.replicas[0].segmentName;
  };
  note('on Alice', 800);
  note('on Bob', 100, {}, BOB);
  assert.equal(['a', 'b', 'c', 'd'].map(goesTo), Array(4).fill('segment-2'));
  disks.reportCapacity(BOB, 110);
  assert.equal(['e', 'f', 'g', 'h'].map(goesTo), Array(4).fill('segment-1'));
  disks.unmount(ALICE);
  assert.equal(['i', 'j', 'k', 'l'].map(goesTo), Array(4).fill('segment-2'));
});

test('a report of many is not cut short by one under a name that is no tenant', () => {
  const { places, disks } = startWithDisk(1000);
  const report = (name: string, tenant: string) => ({
    tenant,
    key: new TextEncoder().encode(name),
    size: 10,
    endpoint: ENDPOINT,
    written: true,
  });
  const reports = [report('a', 'default'), report('b', 'x'.repeat(1025)), report('c', 'default')];
  assert.is(disks.noteOffloads(ALICE, reports), 0);
  assert.equal(['a', 'b', 'c'].map(places), ['disk', '-704', 'disk']);
});

test('a client that brings files along is believed of keys that nobody knows, and of no others', () => {
  const { put, take, note, places, service } = startWithDisk(1000);
  put('mine', 100);
  assert.is(note('old', 400), 0);
  assert.is(places('old'), 'disk');
  note('mine', 100);
  assert.is(places('mine'), 'memory', 'it was not told yet: it may be an older content');
  assert.equal(take(), ['mine']);
  note('mine', 100);
  assert.is(places('mine'), 'memory disk');
  put('other', 100);
  assert.equal(take(false), []);
  note('other', 100);
  assert.is(places('other'), 'memory', 'nobody asked: it may be an older content');
  note('none', 0);
  assert.is(places('none'), '-704');
  assert.is(note('x', 1, {}, BOB), -101);
  assert.is(service.stats().disks.usedBytes, 500);
});

test("a size that is not the object's is not believed", () => {
  const { put, take, note, places } = startWithDisk(1000);
  put('a', 100);
  take();
  note('a', 99);
  assert.is(places('a'), 'memory');
});

test('an object that is on a disk exists: a put is refused, an upsert replaces it, a removal ends it', () => {
  const { put, upsert, remove, read, note, places, service, clock } = startWithDisk(1000);
  for (const name of ['a', 'b']) note(name, 100);
  assert.is(put('a', 100), -705);
  read('a');
  assert.is(remove('a'), -706);
  clock.now += 1000;
  assert.is(upsert('a', 100), 0);
  assert.is(places('a'), 'memory');
  assert.is(remove('b'), 0);
  assert.is(places('b'), '-704');
  assert.equal([service.stats().disks.objects, service.stats().objects], [0, 1]);
});

test('what is gone from the files of a client is gone at once, leased or not; nobody takes from another', () => {
  const { put, take, note, evict, read, places } = startWithDisk(1000);
  put('a', 100);
  take();
  note('a', 100);
  note('b', 100);
  read('b');
  assert.is(evict('a', BOB), 0);
  assert.is(places('a'), 'memory disk');
  assert.equal([evict('a'), evict('a'), evict('b'), evict('x')], [0, 0, 0, -704]);
  assert.equal(['a', 'b'].map(places), ['memory', '-704']);
});

test('the memory of a client goes and its disk stays; the disk goes and what it alone had is gone', () => {
  const { service, put, take, note, places, disks } = startWithDisk(1000);
  put('a', 100);
  put('b', 100);
  take();
  note('a', 100);
  note('c', 100);
  assert.is(service.unmountSegment(segment(1, 1000).id, ALICE), 0);
  assert.equal(['a', 'b', 'c'].map(places), ['disk', '-704', 'disk']);
  assert.is(disks.unmount(ALICE), 0);
  assert.is(disks.unmount(ALICE), 0);
  assert.equal(['a', 'b', 'c'].map(places), ['-704', '-704', '-704']);
  const stats = service.stats();
  assert.equal([stats.objects, stats.usedBytes, stats.disks.objects, stats.disks.disks], [0, 0, 0, 0]);
});

test('when memory holds nothing back, objects of a disk that goes may be evicted again', () => {
  const { put, disks, take, places } = startWithDisk(1000);
  for (const name of ['a', 'b', 'c']) put(name, 300);
  take();
  assert.is(put('d', 300), -200);
  disks.unmount(ALICE);
  assert.is(put('d', 300), 0);
  assert.is(places('a'), '-704');
});

test('offload on evict: an object goes to the disk before its memory goes', () => {
  const { put, take, note, places } = startWithDisk(1000, { offloadOnEvict: true });
  for (const name of ['a', 'b', 'c']) put(name, 300);
  assert.equal(take(), []);
  // One run because the watermark is passed, and one because nothing fits.
  assert.is(put('d', 300), -200);
  assert.equal(take(), ['a', 'b']);
  note('b', 300);
  assert.is(put('d', 300), 0);
  assert.equal(['b', 'a', 'c', 'd'].map(places), ['disk', 'memory', 'memory', 'memory']);
});

test('offload on evict: a full queue stops eviction, or is passed by when that is forced', () => {
  for (const offloadForceEvict of [false, true]) {
    const { put, places } = startWithDisk(1000, { offloadOnEvict: true, offloadForceEvict, offloadQueueLimit: 1 });
    for (const name of ['a', 'b', 'c']) put(name, 300);
    assert.is(put('d', 300), offloadForceEvict ? 0 : -200);
    assert.equal(['a', 'b'].map(places), ['memory', offloadForceEvict ? '-704' : 'memory']);
  }
});

test('offload on evict: what no disk can take is evicted', () => {
  const { put, places, disks } = startWithDisk(1000, { offloadOnEvict: true });
  disks.unmount(ALICE);
  for (const name of ['a', 'b', 'c', 'd']) assert.is(put(name, 300), 0);
  assert.is(places('a'), '-704');
});

test('an object that is read twice from its disk is promoted, and is in memory when the client says so', () => {
  const made = startWithDisk(1000, { promotionOnHit: true });
  const { note, read, has, places, takePromotions, startPromotion, endPromotion, service } = made;
  note('a', 300);
  for (let i = 0; i < 5; i++) has('a');
  read('a');
  assert.equal(takePromotions(), []);
  assert.equal(startPromotion('a', 300).ok, false);
  read('a');
  assert.equal([takePromotions(), takePromotions()], [['a'], []]);
  const refused = (outcome: ReturnType<typeof startPromotion>) => (outcome.ok ? 0 : outcome.status);
  assert.equal(
    [startPromotion('a', 300, BOB), startPromotion('a', 299), startPromotion('x', 300)].map(refused),
    [-600, -600, -704],
  );
  assert.is(endPromotion('a'), -703);
  const started = startPromotion('a', 300);
  assert.ok(started.ok && started.value.state === 'processing' && started.value.size === 300);
  assert.is(refused(startPromotion('a', 300)), -703);
  assert.is(places('a'), 'disk');
  assert.is(service.stats().usedBytes, 300);
  assert.is(endPromotion('a', BOB), -600);
  assert.is(endPromotion('a'), 0);
  assert.is(endPromotion('a'), -703);
  assert.is(places('a'), 'memory disk');
  assert.is(service.stats().disks.objectsOnDiskAlone, 0);
});

test('a promoted object is evicted like any other, and stays on the disk', () => {
  const { note, read, put, places, takePromotions, startPromotion, endPromotion, clock } = startWithDisk(1000, {
    promotionOnHit: true,
  });
  note('a', 300);
  for (let i = 0; i < 2; i++) read('a');
  takePromotions();
  startPromotion('a', 300);
  endPromotion('a');
  clock.now += 1000;
  for (const name of ['b', 'c', 'd']) assert.is(put(name, 300), 0);
  assert.is(places('a'), 'disk');
});

test('a promotion that fails, whose object goes, or whose client is silent gives its space back', () => {
  const options = { promotionOnHit: true, promotionsPerHeartbeat: 10, putDiscardMs: 10, putReleaseMs: 5000 };
  const made = startWithDisk(1000, options);
  const { note, read, evict, put, takePromotions, startPromotion, endPromotion, failPromotion, service, clock } = made;
  for (const name of ['a', 'b', 'c']) {
    note(name, 300);
    for (let i = 0; i < 2; i++) read(name);
  }
  assert.equal(takePromotions(), ['a', 'b', 'c']);
  for (const name of ['a', 'b', 'c']) assert.ok(startPromotion(name, 300).ok);
  assert.is(failPromotion('a', BOB), -600);
  assert.is(failPromotion('a'), 0);
  assert.is(failPromotion('a'), 0);
  assert.is(failPromotion('x'), -704);
  assert.is(service.stats().usedBytes, 600);
  evict('b');
  assert.is(endPromotion('b'), -704);
  assert.equal([service.stats().usedBytes, service.stats().keptBackBytes], [600, 300], 'the client may be writing');
  assert.is(put('d', 600), -200);
  clock.now += 5001;
  assert.is(put('d', 900), 0);
  assert.equal([service.stats().keptBackBytes, service.stats().disks.promotions], [0, 0]);
});

test('a segment that goes takes the space of promotions along', () => {
  const { note, read, takePromotions, startPromotion, endPromotion, service, places } = startWithDisk(1000, {
    promotionOnHit: true,
  });
  note('a', 300);
  for (let i = 0; i < 2; i++) read('a');
  takePromotions();
  startPromotion('a', 300);
  service.unmountSegment(segment(1, 1000).id, ALICE);
  assert.is(endPromotion('a'), -703);
  assert.is(places('a'), 'disk');
  assert.is(service.stats().usedBytes, 0);
});

test('nothing is promoted into memory that is full', () => {
  const { note, read, put, takePromotions, disks } = startWithDisk(1000, {
    promotionOnHit: true,
    evictionHighWatermark: 0.9,
  });
  note('a', 300);
  put('b', 700);
  for (let i = 0; i < 5; i++) read('a');
  assert.equal(takePromotions(), []);
  assert.equal(disks.stats().promotionsRefused, { frequency: 1, watermark: 4, cap: 0 });
});

test('files may be deleted when all was removed, and not when something was written since', async () => {
  const { note, disks, service } = startWithDisk(1000);
  const mayWipe = () => {
    const outcome = disks.mayWipe(ALICE);
    return outcome.ok && outcome.value;
  };
  note('a', 300);
  assert.is(mayWipe(), false);
  await service.removeAll(true);
  assert.equal([mayWipe(), mayWipe()], [true, false]);
  note('a', 300);
  await service.removeAll(true);
  note('b', 300);
  assert.is(mayWipe(), false);
  assert.equal(disks.mayWipe(BOB).ok, false);
});

test('what is written from a copy that goes meanwhile is not believed', () => {
  const { put, note, take, places, service, place } = startWithDisk(1000);
  const { copies } = service;
  service.mountSegment(segment(2, 1000), BOB);
  put('a', 300, { preferredSegments: ['segment-1'] });
  assert.equal(take(), ['a']);
  const call = { kind: 'move', client: BOB, key: new TextEncoder().encode('a'), tenant: 'default' } as const;
  assert.ok(copies.start({ ...call, source: 'segment-1', targets: ['segment-2'] }).ok);
  assert.is(copies.end(call), 0);
  assert.is(place('a')[0].segment, segment(2, 0).id);
  // The client may have read bytes of another object since.
  put('b', 300, { preferredSegments: ['segment-1'] });
  assert.is(note('a', 300), 0);
  assert.is(places('a'), 'memory');
  assert.is(service.stats().disks.offloads, 1);
});

test('what a client says of its disk is checked', () => {
  const { disks } = startWithDisk(1000);
  assert.equal([disks.reportCapacity(ALICE, -1), disks.reportCapacity(ALICE, 5000)], [-600, 0]);
  assert.is(disks.reportCapacity(BOB, 1), -101);
  assert.is(disks.stats().capacityBytes, 5000);
  for (const client of ['', 'alice', undefined]) {
    assert.throws(
      () => disks.mount(client as never, true),
      (error: { code: string }) => error.code === 'ERR_INVALID_ARGUMENT',
    );
  }
});

test.run();
