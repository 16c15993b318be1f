/** Unmounting a segment that holds very many objects: they are gone at once, and nobody waits for the rest of the work. */
import { Keys, MetadataService } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment } from './support.js';

const OBJECTS = 60_000;
const SIZE = 64;
const LENGTH = OBJECTS * SIZE;
/** What is left in the first segment. */
const ROOM = 64;
const keysOf = (first: number, count: number) => Keys.from(Array.from({ length: count }, (_, i) => `key ${first + i}`));

/** Two segments, Alice's and Bob's; every object has a copy in Alice's, and every other one in Bob's too. */
function fill(now: () => number = () => 1000) {
  const service = new MetadataService({ now, leaseTtlMs: 100, evictionHighWatermark: 1 });
  assert.is(service.mountSegment(segment(1, LENGTH + ROOM), ALICE), 0);
  assert.is(service.mountSegment(segment(2, LENGTH), BOB), 0);
  for (let first = 0; first < OBJECTS; first += 1000) {
    for (const replicas of [1, 2]) {
      const keys = Keys.from(Array.from({ length: 500 }, (_, i) => `key ${first + 2 * i + replicas - 1}`));
      const sizes = new Float64Array(500).fill(SIZE);
      const preferredSegments = ['segment-1'];
      const started = service.putStart(ALICE, keys, sizes, { replicas, preferredSegments });
      assert.ok(started.every((one) => one.ok && one.value.length === replicas));
      assert.ok(service.putEnd(ALICE, keys, Array(500).fill(undefined)).every((status) => status === 0));
    }
  }
  return service;
}

test('its objects are gone for every call as soon as it returns, and the others are found elsewhere', async () => {
  const service = fill();
  const late = Keys.from(['late']);
  assert.ok(service.putStart(ALICE, late, Float64Array.of(1), { preferredSegments: ['segment-1'] })[0].ok);
  assert.is(service.unmountSegment(segment(1, 0).id, ALICE), 0);
  assert.ok(service.stats().objects > OBJECTS / 2, 'the work is not done yet');
  // From behind, where no slice has been.
  const first = OBJECTS - 1000;
  const keys = keysOf(first, 1000);
  const wanted = Array.from({ length: 1000 }, (_, i) => (first + i) % 2);
  assert.equal([...service.exist(keysOf(first, 200))], wanted.slice(0, 200));
  const found = service.getReplicas(keysOf(first + 200, 200));
  assert.equal(
    found.map((one) => (one.ok ? one.value.replicas.length : 0)),
    wanted.slice(200, 400),
  );
  for (const one of found) if (one.ok) assert.is(one.value.replicas[0].segmentName, 'segment-2');
  assert.equal(
    service.peek(keysOf(first + 400, 200)).map((one) => (one.ok ? 1 : one.status)),
    wanted.slice(400, 600).map((there) => (there === 1 ? 1 : -704)),
  );
  assert.equal(
    service.remove(keysOf(first + 600, 100), false),
    wanted.slice(600, 700).map((there) => (there === 1 ? 0 : -704)),
  );
  const again = service.putStart(BOB, keysOf(first + 700, 100), new Float64Array(100).fill(SIZE), {});
  assert.equal(
    again.map((one) => (one.ok ? 1 : one.status)),
    wanted.slice(700, 800).map((there) => (there === 1 ? -705 : 1)),
  );
  assert.equal(service.putEnd(ALICE, late, [undefined]), [-704], 'a put without its space has come to nothing');
  assert.is(service.segments().length, 1);
  await service.unmounted();
  assert.equal(
    [...service.exist(keys)],
    wanted.map((there, i) => (i >= 600 && i < 700 ? 0 : there)),
  );
  assert.is(service.segments()[0].usedBytes, service.stats().usedBytes);
});

test('what there was of it is struck out: figures agree when all is done', async () => {
  const service = fill();
  service.unmountSegment(segment(1, 0).id, ALICE);
  await service.unmounted();
  const { objects, usedBytes, capacityBytes, incomplete, tenants } = service.stats();
  assert.equal({ objects, usedBytes, incomplete }, { objects: OBJECTS / 2, usedBytes: LENGTH / 2, incomplete: 0 });
  assert.is(capacityBytes, LENGTH);
  assert.is(tenants.default.usedBytes, LENGTH / 2);
  assert.is((await service.keys()).length, OBJECTS / 2);
  service.unmountSegment(segment(2, 0).id, BOB);
  await service.unmounted();
  assert.is(service.stats().objects, 0);
  assert.is(service.stats().usedBytes, 0);
});

test('everybody else is served meanwhile', async () => {
  const service = fill();
  service.unmountSegment(segment(1, 0).id, ALICE);
  let turns = 0;
  let done = false;
  const ended = service.unmounted().then(() => {
    done = true;
  });
  while (!done) {
    await new Promise((resolve) => setImmediate(resolve));
    service.exist(keysOf(turns, 1));
    turns++;
  }
  await ended;
  assert.ok(turns >= 2, `${turns} turns`);
});

test('several at once are unmounted together, and one that is unmounted meanwhile too', async () => {
  const service = fill();
  for (let number = 3; number < 8; number++) assert.is(service.mountSegment(segment(number, 1000), BOB), 0);
  service.unmountSegment(segment(1, 0).id, ALICE);
  for (let number = 3; number < 8; number++) service.unmountSegment(segment(number, 0).id, BOB);
  await new Promise((resolve) => setImmediate(resolve));
  service.unmountSegment(segment(2, 0).id, BOB);
  assert.equal([...service.exist(keysOf(OBJECTS - 10, 10))], Array(10).fill(0));
  await service.unmounted();
  assert.is(service.stats().objects, 0);
  assert.equal(service.segments(), []);
});

test('its memory can be mounted again when all is known of it, and leased bytes are kept back there', async () => {
  let now = 1000;
  const service = fill(() => now);
  const read = service.getReplicas(keysOf(0, OBJECTS)).flatMap((one) => (one.ok ? one.value.replicas : []));
  assert.is(read.length, OBJECTS * 1.5);
  service.unmountSegment(segment(1, 0).id, ALICE);
  assert.is(service.mountSegment(segment(1, LENGTH + ROOM), ALICE), -1010);
  assert.is(service.mountSegment(segment(9, LENGTH, { base: segment(1, 0).base + 64 }), ALICE), -1010, 'overlaps it');
  assert.is(service.mountSegment(segment(9, 1000), ALICE), 0, 'other memory');
  await service.unmounted();
  assert.is(service.mountSegment(segment(1, LENGTH), ALICE), 0, 'without the rest');
  const [size, config] = [Float64Array.of(SIZE), { preferredSegments: ['segment-1'] }];
  const [early] = service.putStart(ALICE, Keys.from(['early']), size, config);
  assert.ok(early.ok && early.value[0].segmentName !== 'segment-1', 'every byte may still be read');
  now += 101;
  const [late] = service.putStart(ALICE, Keys.from(['late']), size, config);
  assert.ok(late.ok && late.value[0].segmentName === 'segment-1');
});

test.run();
