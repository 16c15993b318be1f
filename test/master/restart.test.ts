/** What comes back after a restart meets what goes on since: segments that come and go, copies, drains, failed snapshots. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { contents, crash, newFolder, type Opened, open } from './persist-support.js';
import { ALICE, BOB, segment } from './support.js';

const LENGTH = 1000;
const WALL = 1_700_000_000_000;
const SETTINGS = { putReleaseMs: 5000, putDiscardMs: 1000 };

async function start(): Promise<Opened> {
  const one = await open(newFolder(), { now: WALL }, SETTINGS);
  assert.is(one.service.mountSegment(segment(1, LENGTH), ALICE), 0);
  return one;
}

const again = async (old: Opened) => open(crash(old), { now: old.clock.now }, SETTINGS);
const bytes = (key: string) => new TextEncoder().encode(key);

test('what a segment took along does not come back in one that is mounted after a restart', async () => {
  const one = await start();
  one.put('a', 10);
  assert.is(one.service.unmountSegment(segment(1, LENGTH).id, ALICE), 0);
  await one.persistence.settled();
  const two = await again(one);
  assert.is(two.service.mountSegment(segment(2, LENGTH), BOB), 0);
  await two.persistence.settled();
  const three = await again(two);
  assert.is(three.service.mountSegment(segment(2, LENGTH), BOB), 0);
  assert.equal(await contents(three), new Map());
  for (const { persistence } of [one, two, three]) await persistence.close();
});

test('a key that is put again after its segment went has the group that it was put with', async () => {
  const one = await start();
  one.put('a', 10, { groups: 'old' });
  one.put('b', 10, { groups: 'old' });
  assert.is(one.service.unmountSegment(segment(1, LENGTH).id, ALICE), 0);
  await one.service.unmounted();
  assert.is(one.service.mountSegment(segment(2, LENGTH), BOB), 0);
  one.put('a', 10, { groups: 'new' });
  one.put('b', 10);
  await one.persistence.settled();
  const two = await again(one);
  assert.is(two.service.mountSegment(segment(2, LENGTH), BOB), 0);
  two.clock.now += 100;
  assert.is(two.status(two.beginUpsert('a', 20, { groups: 'new' })), 0);
  assert.is(two.status(two.beginUpsert('b', 20, { groups: 'old' })), -600);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('the end of a drain lets nothing into a segment whose client has not come back, or before the fence falls', async () => {
  const one = await start();
  await one.persistence.settled();
  const two = await again(one);
  const drain = () => {
    two.service.setDrain('segment-1', 'draining');
    two.service.setDrain('segment-1', 'none');
  };
  drain();
  assert.is(two.put('a', 10), -200, 'absent');
  assert.is(two.service.mountSegment(segment(1, LENGTH), ALICE), 0);
  drain();
  assert.is(two.put('a', 10), -200, 'fenced');
  two.service.setDrain('segment-1', 'draining');
  two.clock.now += 100;
  assert.is(two.put('a', 10), -200, 'draining');
  two.service.setDrain('segment-1', 'none');
  assert.is(two.put('a', 10), 0);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('nothing is copied from a segment whose client has not come back, and no move trusts a copy there', async () => {
  const one = await start();
  assert.is(one.service.mountSegment(segment(2, LENGTH), BOB), 0);
  one.put('a', 10, { replicas: 2 });
  one.put('b', 10, { preferredSegments: ['segment-1'] });
  await one.persistence.settled();
  const two = await again(one);
  assert.is(two.service.mountSegment(segment(2, LENGTH), BOB), 0);
  two.clock.now += 100;
  const move = (key: string, source: string, target: string) => {
    const plan = two.service.copies.start({
      ...{ kind: 'move', client: BOB, key: bytes(key), tenant: 'default' },
      ...{ source, targets: [target] },
    });
    return plan.ok ? plan.value.targets.length : plan.status;
  };
  assert.is(move('b', 'segment-1', 'segment-2'), -710);
  assert.is(move('a', 'segment-2', 'segment-1'), -200);
  assert.is(two.has('a'), 1);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('what is on a disk and in a segment whose client has not come back is not promoted', async () => {
  const one = await start();
  assert.is(one.service.mountSegment(segment(2, LENGTH), BOB), 0);
  one.put('a', 10, { preferredSegments: ['segment-1'] });
  one.put('b', LENGTH, { preferredSegments: ['segment-2'] });
  await one.persistence.settled();
  const disks = { offload: true, offloadOnEvict: true, promotionOnHit: true, promotionThreshold: 1 };
  const two = await open(crash(one), { now: one.clock.now }, { ...SETTINGS, ...disks });
  const { service } = two;
  assert.is(service.mountSegment(segment(2, LENGTH), BOB), 0);
  assert.is(service.disks.mount(ALICE, true), 0);
  two.clock.now += 100;
  // Makes room, and has what is evicted written to a disk first.
  two.put('c', 10);
  assert.is(service.disks.stats().offloads, 1);
  service.disks.takeOffloads(ALICE, true);
  const written = { tenant: 'default', key: bytes('a'), size: 10, endpoint: 'local:disk', written: true };
  assert.is(service.disks.noteOffloads(ALICE, [written]), 0);
  assert.is(service.disks.stats().objects, 1);
  const found = two.read('a');
  assert.ok(found.ok);
  assert.equal([found.value.replicas.length, found.value.disk?.client], [0, ALICE]);
  assert.is(service.disks.stats().promotionsAdmitted, 0);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('a snapshot that could not begin leaves no gap between the logs', async () => {
  const one = await start();
  const { dataDir, persistence } = one;
  const inTheWay = join(dataDir, 'snapshot-00000002.tmp');
  mkdirSync(inTheWay);
  await persistence.snapshot().then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, 'EISDIR'),
  );
  rmSync(inTheWay, { recursive: true });
  // The next one begins, and does not end.
  for (const name of ['snapshot-00000002', 'snapshot-00000003']) {
    mkdirSync(join(dataDir, name));
    writeFileSync(join(dataDir, name, 'x'), '');
  }
  await persistence.snapshot().then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, /EISDIR|ENOTEMPTY|EEXIST/),
  );
  for (const name of ['snapshot-00000002', 'snapshot-00000003']) rmSync(join(dataDir, name), { recursive: true });
  one.put('a', 10);
  await persistence.settled();
  const two = await again(one);
  assert.is(two.service.mountSegment(segment(1, LENGTH), ALICE), 0);
  assert.is(two.has('a'), 1);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('a snapshot has what may still be written to of memory that was unmounted', async () => {
  const one = await start();
  assert.is(one.status(one.begin('a', 10)), 0);
  assert.is(one.service.unmountSegment(segment(1, LENGTH).id, ALICE), 0);
  await one.persistence.snapshot();
  const two = await again(one);
  assert.is(two.service.mountSegment(segment(1, LENGTH), ALICE), 0);
  assert.is(two.put('b', LENGTH), -200);
  two.clock.now += SETTINGS.putReleaseMs;
  assert.is(two.put('b', LENGTH), 0);
  for (const { persistence } of [one, two]) await persistence.close();
});

test('a snapshot that is taken while segments go has all that is kept back', async () => {
  const LARGE = 200_000;
  const one = await open(newFolder(), { now: WALL }, SETTINGS);
  const { service, persistence } = one;
  for (const number of [1, 2]) assert.is(service.mountSegment(segment(number, LARGE), ALICE), 0);
  const names = Array.from({ length: 100_000 }, (_, i) => `${i}`);
  const keys = one.keys(...names);
  service.putStart(ALICE, keys, new Float64Array(names.length).fill(1), { preferredSegments: ['segment-1'] });
  service.putEnd(ALICE, keys, new Array(names.length).fill(undefined));
  one.put('z', 1, { preferredSegments: ['segment-2'] });
  for (const all of [keys, one.keys('z')]) {
    service.getReplicas(all);
    service.remove(all, true);
  }
  await persistence.snapshot();
  assert.is(service.unmountSegment(segment(2, 0).id, ALICE), 0);
  await new Promise((resolve) => setImmediate(resolve));
  await persistence.snapshot();
  await service.unmounted();
  const two = await again(one);
  assert.is(two.service.segments()[0].keptBack, names.length);
  for (const { persistence } of [one, two]) await persistence.close();
});

test.run();
