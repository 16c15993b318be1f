/** Unmounting a disk that has very many objects: they are gone from it at once, and nobody waits for the rest of the work. */
import { Keys } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, start } from './support.js';

const OBJECTS = 20_000;
const IN_MEMORY = 1000;
const SIZE = 8;
const keysOf = (first: number, count: number) => Keys.from(Array.from({ length: count }, (_, i) => `key ${first + i}`));

/** Alice's disk has every object; the last of them are in memory too. */
function fill() {
  const made = start(IN_MEMORY * SIZE, { offload: true });
  const { service } = made;
  const { disks } = service;
  assert.is(disks.mount(ALICE, true), 0);
  const report = (keys: Keys) =>
    disks.noteOffloads(
      ALICE,
      Array.from({ length: keys.length }, (_, i) => ({
        tenant: 'default',
        key: keys.at(i),
        size: SIZE,
        endpoint: 'a:1',
        written: true,
      })),
    );
  report(keysOf(0, OBJECTS - IN_MEMORY));
  const last = keysOf(OBJECTS - IN_MEMORY, IN_MEMORY);
  assert.ok(service.putStart(ALICE, last, new Float64Array(IN_MEMORY).fill(SIZE), {}).every(({ ok }) => ok));
  service.putEnd(ALICE, last, Array(IN_MEMORY).fill(undefined));
  assert.ok(disks.takeOffloads(ALICE, true).ok);
  report(last);
  assert.equal(service.stats().disks.objects, OBJECTS);
  return { ...made, report };
}

const copies = (found: ReturnType<ReturnType<typeof fill>['service']['peek']>) =>
  found.map((one) => (one.ok ? `${one.value.replicas.length} ${one.value.disk ? 1 : 0}` : `${one.status}`));

test('its objects are gone for every call as soon as it returns; its client may lend another at once', async () => {
  const { service, report } = fill();
  assert.is(service.disks.unmount(ALICE), 0);
  assert.ok(service.stats().disks.objectsOnDiskAlone > OBJECTS / 2, 'the work is not done yet');
  // From behind, where no slice has been.
  const first = OBJECTS - IN_MEMORY - 500;
  assert.equal([...service.exist(keysOf(first, 100))], Array(100).fill(0));
  assert.equal(copies(service.getReplicas(keysOf(first + 100, 100))), Array(100).fill('-704'));
  assert.equal(copies(service.peek(keysOf(OBJECTS - 100, 100))), Array(100).fill('1 0'));
  assert.is(service.disks.mount(ALICE, true), 0);
  report(keysOf(first + 200, 100));
  assert.equal(copies(service.peek(keysOf(first + 200, 100))), Array(100).fill('0 1'));
  assert.is(service.stats().disks.objects, 100);
  for (let turn = 0; service.stats().objects > IN_MEMORY + 100; turn++) {
    assert.ok(turn < 100_000, `${service.stats().objects} objects are left`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { objects, objectsOnDiskAlone } = service.stats().disks;
  assert.equal([service.stats().objects, objects, objectsOnDiskAlone], [IN_MEMORY + 100, 100, 100]);
  assert.equal(copies(service.peek(keysOf(OBJECTS - IN_MEMORY, 3))), Array(3).fill('1 0'));
});

test.run();
