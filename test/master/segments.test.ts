// Segments: mounting, placement of copies, and what goes with a segment that is unmounted.
import {
  type AllocationStrategy,
  Keys,
  MetadataService,
  type MooncakeError,
  type ReplicateConfig,
  type SegmentInfo,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start, uuid } from './support.js';

test('mounting again what is mounted is fine; another segment of that id, name or range is not', () => {
  const { service } = start(1000);
  const own = segment(1, 1000);
  assert.is(service.mountSegment(own, ALICE), 0);
  assert.is(service.mountSegment(own, BOB), -102);
  for (const more of [{ length: 2000 }, { endpoint: 'local:other' }, { protocol: 'tcp' }, { hostId: 'other' }]) {
    assert.is(service.mountSegment({ ...own, ...more }, ALICE), -102, JSON.stringify(more));
  }
  assert.is(service.mountSegment({ ...own, id: uuid(7) }, BOB), -102, 'the name is taken');
  const second = { ...own, id: uuid(7), name: 'other' };
  assert.is(service.mountSegment({ ...second, base: own.base + 999 }, ALICE), -102, 'they overlap');
  assert.is(service.mountSegment({ ...second, base: own.base + 1000 }, ALICE), 0);
  assert.is(service.mountSegment({ ...own, id: uuid(8), name: 'foreign' }, BOB), 0, 'the memory of another process');
  const elsewhere = { ...own, id: uuid(9), endpoint: 'local:other' };
  assert.is(service.mountSegment(elsewhere, uuid(77)), 0, 'the name at another endpoint');
  assert.is(service.stats().capacityBytes, 4000);
});

test('a segment that leaves is read and takes nothing new', () => {
  const { service, keys, put, getReplicas } = leavingStore();
  assert.is(put('old'), 0);
  assert.is(service.leaveSegment(uuid(99), ALICE), -101);
  const [first, second] = [segment(1, 1024), segment(2, 1024)];
  assert.is(service.leaveSegment(first.id, BOB), -601);
  assert.is(service.leaveSegment(first.id, ALICE), 0);
  assert.is(service.mountSegment(first, ALICE), -1010);
  assert.equal(
    service.segments().map(({ isLeaving }) => isLeaving),
    [true],
  );
  assert.is(put('new'), -200);
  assert.is(getReplicas('old'), first.id);
  service.mountSegment(second, ALICE);
  // Also where it could be written over in place, and where the segment that leaves is asked for.
  const [again] = service.upsertStart(ALICE, keys('old'), Float64Array.of(128), { preferredSegments: [first.name] });
  assert.is(again.ok && again.value[0].segment, second.id);
  service.upsertEnd(ALICE, keys('old'), [undefined]);
  assert.is(getReplicas('old'), second.id);
  for (let i = 0; i < 7; i++) assert.is(put(`new ${i}`), 0);
  assert.is(service.unmountSegment(first.id, ALICE), 0);
  assert.is(getReplicas('new 6'), second.id);
});

function leavingStore() {
  const service = new MetadataService({ now: () => 1000, leaseTtlMs: 0, evictionHighWatermark: 1 });
  service.mountSegment(segment(1, 1024), ALICE);
  const keys = (key: string) => Keys.from([key]);
  const put = (key: string) => {
    const [started] = service.putStart(ALICE, keys(key), Float64Array.of(128), {});
    return started.ok ? service.putEnd(ALICE, keys(key), [undefined])[0] : started.status;
  };
  const getReplicas = (key: string) => {
    const [found] = service.getReplicas(keys(key));
    return found.ok ? found.value.replicas[0].segment : found.status;
  };
  return { service, keys, put, getReplicas };
}

test('a client clears copies of its own objects, in a segment or everywhere', () => {
  let now = 1000;
  const service = new MetadataService({ now: () => now, leaseTtlMs: 10 });
  const [first, second] = [segment(1, 1024), segment(2, 1024)];
  service.mountSegment(first, ALICE);
  service.mountSegment(second, ALICE);
  const keys = Keys.from(['mine']);
  const clear = (client: string, name: string) => service.clearReplicas(client, keys, name)[0];
  assert.is(clear(ALICE, ''), -704);
  service.putStart(ALICE, keys, Float64Array.of(128), { replicas: 2 });
  assert.is(clear(ALICE, ''), -703);
  service.putEnd(ALICE, keys, [undefined]);
  assert.is(clear(BOB, ''), -601);
  assert.is(clear(ALICE, 'unknown'), -101);
  service.exist(keys);
  assert.is(clear(ALICE, first.name), -706);
  now += 11;
  assert.is(service.stats().usedBytes, 256);
  assert.is(clear(ALICE, first.name), 0);
  assert.is(service.stats().usedBytes, 128);
  const [left] = service.peek(keys);
  assert.equal(left.ok && left.value.replicas.map((one) => one.segment), [second.id]);
  assert.is(clear(ALICE, first.name), -101);
  assert.is(clear(ALICE, ''), 0);
  assert.is(service.exist(keys)[0], 0);
  assert.is(service.stats().usedBytes, 0);
});

test('segments of no bytes, of no name, or beyond 2^47 are -600', () => {
  const { service } = start(1000);
  for (const more of [
    { length: 0 },
    { length: -5 },
    { length: 1.5 },
    { length: Number.NaN },
    { base: -1 },
    { base: 0.5 },
    { base: 2 ** 47 - 999 },
    { name: '' },
  ]) {
    assert.is(service.mountSegment({ ...segment(2, 1000), ...more }, ALICE), -600, JSON.stringify(more));
  }
  for (const [argument, call] of [
    ['segment', () => service.mountSegment(null as never, ALICE)],
    ['segment.id', () => service.mountSegment({ ...segment(2, 10), id: 'x' }, ALICE)],
    ['segment.endpoint', () => service.mountSegment({ ...segment(2, 10), endpoint: 5 as never }, ALICE)],
    ['client', () => service.mountSegment(segment(2, 10), '')],
    ['segment', () => service.unmountSegment('x', ALICE)],
  ] as const) {
    try {
      call();
      assert.unreachable(argument);
    } catch (error) {
      assert.is((error as MooncakeError).argument, argument);
    }
  }
  assert.is(service.segments().length, 1);
});

test('copies go to different segments, as many as there are', () => {
  const { service, put, place, begin } = start(1000);
  for (const number of [2, 3]) service.mountSegment(segment(number, 1000), BOB);
  put('a', 100, { replicas: 3 });
  assert.is(new Set(place('a').map(({ segment }) => segment)).size, 3);
  put('b', 100, { replicas: 5 });
  assert.is(place('b').length, 3, 'fewer than asked is success');
  put('large', 900, { replicas: 3 });
  const outcome = begin('c', 150, { replicas: 3 });
  assert.ok(outcome.ok);
});

test('preferred segments come first, in their order, then the rest', () => {
  for (const allocationStrategy of ['random', 'free_ratio_first', 'local_first'] as AllocationStrategy[]) {
    const { service, put, place } = start(300, { allocationStrategy });
    for (const number of [2, 3, 4]) service.mountSegment(segment(number, 300), BOB);
    const preferredSegments = ['segment-3', 'none', 'segment-2'];
    const wanted = [3, 3, 3, 2, 2, 2].map((number) => segment(number, 0).id);
    for (const [i, id] of wanted.entries()) {
      put(`key-${i}`, 100, { preferredSegments });
      assert.is(place(`key-${i}`)[0].segment, id, `${allocationStrategy} ${i}`);
    }
    assert.is(put('key-6', 100, { preferredSegments }), 0);
  }
});

test("the writer's host comes first where that is asked for, or is the strategy", () => {
  const spread = (allocationStrategy: AllocationStrategy, config: ReplicateConfig) => {
    const { service, put, place } = start(10_000, { allocationStrategy });
    service.mountSegment(segment(2, 1000, { hostId: 'here' }), BOB);
    service.mountSegment(segment(3, 10_000, { hostId: 'there' }), uuid(9));
    for (let i = 0; i < 10; i++) put(`key-${i}`, 100, config);
    return Array.from({ length: 10 }, (_, i) => place(`key-${i}`)[0].segment);
  };
  const here = Array(10).fill(segment(2, 0).id);
  assert.equal(spread('local_first', { hostId: 'here' }), here);
  assert.equal(spread('random', { hostId: 'here', preferSameNode: true }), here);
  assert.not.equal(spread('random', { hostId: 'here' }), here);
});

test('a writer that names no host is on that of its own segments', () => {
  const { service, keys, place } = start(10_000, { allocationStrategy: 'local_first' });
  service.mountSegment(segment(2, 10_000, { hostId: 'here' }), BOB);
  for (let i = 0; i < 10; i++) {
    service.putStart(BOB, keys(`key-${i}`), Float64Array.of(100), {}, 'default');
    service.putEnd(BOB, keys(`key-${i}`), [undefined], 'default');
    assert.is(place(`key-${i}`)[0].segment, segment(2, 0).id);
  }
});

test('free_ratio_first takes the emptiest; random spreads', () => {
  const { service, put, place } = start(1000, { allocationStrategy: 'free_ratio_first' });
  put('a', 500);
  service.mountSegment(segment(2, 2000), BOB);
  put('b', 900);
  assert.is(place('b')[0].segment, segment(2, 0).id);
  put('c', 100);
  assert.is(place('c')[0].segment, segment(2, 0).id, '55 % are free there, 50 % here');
  put('d', 100);
  assert.is(place('d')[0].segment, segment(1, 0).id);
  const random = start(1e6);
  for (const number of [2, 3]) random.service.mountSegment(segment(number, 1e6), BOB);
  for (let i = 0; i < 100; i++) random.put(`key-${i}`, 1);
  for (const { objects } of random.service.segments()) assert.ok(objects > 5, `${objects} of 100`);
});

test('what lay in an unmounted segment alone is gone at once; copies elsewhere are served', () => {
  const { service, put, read, has, begin, end, place } = start(1000);
  service.mountSegment(segment(2, 1000), BOB);
  put('both', 100, { replicas: 2 });
  put('here', 100, { preferredSegments: ['segment-1'] });
  put('there', 100, { preferredSegments: ['segment-2'] });
  begin('open', 100, { preferredSegments: ['segment-2'] });
  read('there');
  assert.is(service.unmountSegment(segment(2, 0).id, ALICE), -601);
  assert.is(service.unmountSegment(segment(2, 0).id, BOB), 0);
  assert.is(service.unmountSegment(segment(2, 0).id, BOB), 0, 'one that is not there is no error');
  assert.equal([has('both'), has('here'), has('there'), end('open')], [1, 1, 0, -704]);
  assert.equal(
    place('both').map(({ segment }) => segment),
    [segment(1, 0).id],
  );
  const { usedBytes, capacityBytes, keptBackBytes, tenants } = service.stats();
  assert.equal({ usedBytes, capacityBytes, keptBackBytes }, { usedBytes: 200, capacityBytes: 1000, keptBackBytes: 0 });
  assert.is(tenants.default.usedBytes, 200);
});

test('space that is kept back goes with its segment, and other memory that comes next is whole', () => {
  const { service, clock, put, read, remove } = start(1000);
  put('a', 600);
  read('a');
  remove('a', true);
  assert.is(service.stats().keptBackBytes, 600);
  service.unmountSegment(segment(1, 0).id, ALICE);
  assert.is(service.stats().keptBackBytes, 0);
  service.mountSegment(segment(2, 1000), ALICE);
  assert.is(put('b', 1000), 0);
  clock.now += 1000;
  service.tick();
  assert.equal([service.stats().usedBytes, service.stats().objects], [1000, 1]);
});

test('memory that is mounted again is not handed out where somebody may still be reading or writing it', () => {
  const { service, clock, put, read, remove, begin, status, end, place } = start(1000);
  const own = segment(1, 1000);
  const again = () => {
    assert.is(service.unmountSegment(own.id, ALICE), 0);
    assert.is(service.mountSegment(own, ALICE), 0);
    return service.stats().keptBackBytes;
  };
  begin('written', 100);
  put('read', 200);
  put('removed', 300);
  put('idle', 400);
  read('read');
  read('removed');
  remove('removed', true);
  assert.equal([again(), again()], [600, 600]);
  assert.equal([end('written'), put('b', 401), put('c', 400, { hardPin: true })], [-704, -200, 0]);
  clock.now += 100;
  assert.is(service.stats().keptBackBytes, 100);
  assert.is(status(begin('d', 501)), -200);
  assert.is(put('d', 500), 0);
  assert.is(place('d').length, 1);
  clock.now += 600_000;
  assert.equal([service.stats().keptBackBytes, again()], [0, 0]);
});

test('the same memory is known by its addresses, or by the name that transfers use', () => {
  const kept = (info: Partial<SegmentInfo>, client = ALICE) => {
    const { service, put, read } = start(1000, { alignment: 64 });
    put('a', 200);
    put('b', 200);
    read('b'); // 256 to 512
    service.unmountSegment(segment(1, 0).id, ALICE);
    assert.is(service.mountSegment({ ...segment(2, 1000), ...info }, client), 0);
    return service.stats().keptBackBytes;
  };
  const { id, base, name } = segment(1, 1000);
  assert.is(kept({}), 0);
  assert.is(kept({ base }), 256);
  assert.is(kept({ base: base + 500 }), 64, 'the last 12 of these bytes');
  assert.is(kept({ base: base - 800 }), 0, 'behind the end');
  assert.is(kept({ base: base - 10 }), 320, 'whole units');
  assert.is(kept({ base }, BOB), 0, 'the memory of another process');
  assert.is(kept({ name }, BOB), 256);
  assert.is(kept({ id }, BOB), 256);
  assert.is(kept({ name, endpoint: 'local:other' }, BOB), 0);
});

test('figures of segments', () => {
  const { service, put, read, remove, begin } = start(1000, { alignment: 64 });
  put('a', 100);
  put('b', 100);
  begin('c', 1);
  read('b');
  remove('b', true);
  const [figures] = service.segments();
  assert.equal(figures, {
    ...segment(1, 1000),
    client: ALICE,
    usedBytes: 128 + 128 + 64,
    isLeaving: false,
    isAbsent: false,
    drain: 'none',
    keptBack: 1,
    capacityBytes: 960,
    objects: 2,
  });
});

test.run();
