/** What a restart brings back, and what it does not: one question a test. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  checkApart,
  contents,
  crash,
  files,
  lastLog,
  lastLogBytes,
  newFolder,
  type Opened,
  open,
} from './persist-support.js';
import { ALICE, BOB, segment } from './support.js';

const LENGTH = 1000;
const WALL = 1_700_000_000_000;

async function start(metadata = {}, options = {}): Promise<Opened> {
  const one = await open(newFolder(), { now: WALL }, metadata, options);
  assert.is(one.service.mountSegment(segment(1, LENGTH), ALICE), 0);
  return one;
}

async function again(old: Opened, cut?: number, metadata = {}): Promise<Opened> {
  return open(crash(old, cut), { now: old.clock.now }, metadata);
}

async function withService(body: (one: Opened) => Promise<Opened[]>, metadata = {}, options = {}): Promise<void> {
  const one = await start(metadata, options);
  const others = await body(one);
  for (const { persistence } of [one, ...others]) await persistence.close();
}

test('an object is offered once its segment is mounted again, and what it is has not changed', () =>
  withService(async (one) => {
    const { service, persistence } = one;
    service.putStart(ALICE, one.keys('a'), Float64Array.of(10), { hardPin: true });
    service.putEnd(ALICE, one.keys('a'), [0xdeadbeefn]);
    one.put('b', 20, { groups: 'g' }, 'other');
    await persistence.settled();
    const before = await contents(one);
    const two = await again(one);
    assert.is(two.events[0].what, 'data-restored');
    assert.is(two.has('a'), 0);
    assert.is(two.peek('a'), false);
    assert.is(two.read('a').ok, false);
    assert.equal(await two.service.keys(), []);
    assert.is(two.service.mountSegment(segment(1, LENGTH), ALICE), 0);
    assert.equal(await contents(two), before);
    assert.is(two.has('a'), 1);
    assert.equal(two.service.stats().tenants, {
      default: { objects: 1, usedBytes: 10, quotaBytes: null },
      other: { objects: 1, usedBytes: 20, quotaBytes: null },
    });
    return [two];
  }));

test('a segment that is not the same brings nothing back', () =>
  withService(async (one) => {
    one.put('a', 10);
    await one.persistence.settled();
    const others: Opened[] = [];
    for (const [more, client] of [
      [{ length: LENGTH - 1 }, ALICE],
      [{ base: 2 ** 33 }, ALICE],
      [{ endpoint: 'elsewhere' }, ALICE],
      [{}, BOB],
    ] as const) {
      const two = await again(one);
      assert.is(two.service.mountSegment({ ...segment(1, LENGTH), ...more }, client), 0);
      assert.is(two.has('a'), 0);
      assert.is(two.service.stats().objects, 0);
      others.push(two);
    }
    return others;
  }));

test('what was removed stays removed, what was replaced is the new', () =>
  withService(async (one) => {
    for (const key of ['a', 'b', 'c']) one.put(key, 10);
    one.remove('a');
    one.upsert('b', 30);
    one.upsert('c', 10);
    await one.persistence.settled();
    const before = await contents(one);
    assert.is(before.size, 2);
    const two = await again(one);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.equal(await contents(two), before);
    return [two];
  }));

test('pins last as long as they were to', () =>
  withService(
    async (one) => {
      one.put('soft', 400, { softPin: 'enable', softPinTtlMs: 5000 });
      one.put('hard', 400, { hardPin: true });
      await one.persistence.settled();
      one.clock.now += 4000;
      const two = await again(one, undefined, { allowEvictSoftPinned: false });
      two.service.mountSegment(segment(1, LENGTH), ALICE);
      two.clock.now += 900;
      assert.is(two.put('more', 300), -200);
      two.clock.now += 200;
      assert.is(two.put('more', 300), 0);
      assert.equal([two.peek('soft'), two.peek('hard')], [false, true]);
      return [two];
    },
    { allowEvictSoftPinned: false },
  ));

test('for one lease nothing is placed where somebody may still read', () =>
  withService(async (one) => {
    one.put('a', 600);
    one.read('a');
    await one.persistence.settled();
    one.remove('a', true);
    await one.persistence.settled();
    const two = await again(one);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.is(two.put('b', 10), -200);
    two.clock.now += 100;
    assert.is(two.put('b', 600), 0);
    return [two];
  }));

test('what was read before is not given away under its readers', () =>
  withService(async (one) => {
    one.put('a', 600);
    await one.persistence.settled();
    one.read('a');
    one.clock.now += 60;
    const two = await again(one);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.is(two.remove('a'), -706);
    assert.is(two.remove('a', true), 0);
    two.clock.now += 30;
    assert.is(two.service.stats().keptBackBytes, 600);
    two.clock.now += 70;
    assert.is(two.put('b', 600), 0);
    return [two];
  }));

test('what may still be written to is kept back until it may not', () =>
  withService(
    async (one) => {
      for (const key of ['a', 'b', 'c', 'd']) one.begin(key, 250);
      one.end('a');
      one.revoke('c');
      one.end('d');
      one.remove('a', true);
      await one.persistence.settled();
      const two = await again(one, undefined, { putReleaseMs: 2000, putDiscardMs: 1000 });
      two.service.mountSegment(segment(1, LENGTH), ALICE);
      two.clock.now += 200;
      assert.is(two.service.stats().keptBackBytes, 250, 'the space of b');
      for (const key of ['e', 'f']) assert.is(two.put(key, 250, { hardPin: true }), 0);
      two.clock.now += 1700;
      assert.is(two.remove('d'), 0);
      assert.is(two.put('g', 250), 0);
      checkApart(await contents(two), [{ segment: segment(1, 0).id, offset: 250, size: 250 }]);
      two.clock.now += 200;
      assert.is(two.service.stats().keptBackBytes, 0);
      assert.is(two.put('h', 250), 0);
      checkApart(await contents(two));
      return [two];
    },
    { putReleaseMs: 2000, putDiscardMs: 1000 },
  ));

test('a put of what is not offered is a put', () =>
  withService(async (one) => {
    one.put('a', 10);
    await one.persistence.settled();
    const two = await again(one);
    two.service.mountSegment(segment(2, LENGTH), BOB);
    assert.is(two.put('a', 20), 0);
    assert.equal(two.place('a'), [{ segment: segment(2, 0).id, offset: 0, size: 20 }]);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.is(two.place('a').length, 1);
    await two.persistence.settled();
    const three = await again(two);
    three.service.mountSegment(segment(2, LENGTH), BOB);
    assert.is(three.place('a')[0].size, 20);
    return [two, three];
  }));

test('an unmounted segment takes its copies along, and those on others stay', () =>
  withService(async (one) => {
    one.service.mountSegment(segment(2, LENGTH), BOB);
    one.put('both', 10, { replicas: 2 });
    for (let i = 0; i < 8; i++) one.put(`one${i}`, 10);
    one.service.unmountSegment(segment(2, 0).id, BOB);
    one.service.mountSegment(segment(2, LENGTH), BOB);
    await one.persistence.settled();
    const before = await contents(one);
    const two = await again(one);
    for (const [number, client] of [
      [1, ALICE],
      [2, BOB],
    ] as const)
      two.service.mountSegment(segment(number, LENGTH), client);
    assert.equal(await contents(two), before);
    assert.is(two.place('both').length, 1);
    assert.is(two.service.segments().length, 2);
    assert.is(two.service.stats().usedBytes, one.service.stats().usedBytes);
    return [two];
  }));

test('a frame that was being written is as if it had never begun, wherever it was cut off', () =>
  withService(async (one) => {
    one.put('a', 10);
    await one.persistence.settled();
    const durable = lastLogBytes(one.dataDir);
    const before = await contents(one);
    one.put('b', 20);
    one.remove('a');
    await one.persistence.settled();
    const whole = lastLogBytes(one.dataDir);
    const after = await contents(one);
    assert.ok(whole > durable + 24);
    for (let cut = durable; cut <= whole; cut += 1) {
      const two = await again(one, cut);
      two.service.mountSegment(segment(1, LENGTH), ALICE);
      assert.equal(await contents(two), cut === whole ? after : before, `cut at ${cut}`);
      await two.persistence.close();
    }
    return [];
  }));

test('a log that is damaged before its end is worth nothing: said, moved aside, never served', () =>
  withService(async (one) => {
    one.put('a', 10);
    await one.persistence.settled();
    const at = lastLogBytes(one.dataDir) - 1;
    one.put('b', 10);
    await one.persistence.settled();
    const copy = crash(one);
    const bytes = readFileSync(lastLog(copy));
    bytes[at] ^= 1;
    writeFileSync(lastLog(copy), bytes);
    const two = await open(copy, { now: one.clock.now });
    const [event] = two.events;
    assert.is(event.what, 'data-damaged');
    if (event.what !== 'data-damaged') return [two];
    assert.ok(event.lost);
    assert.match(event.why, /log-00000001 is damaged from byte \d+ on, and goes on behind it/);
    assert.equal(readdirSync(event.aside), ['log-00000001']);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.equal([two.peek('a'), two.peek('b')], [false, false]);
    two.put('c', 10);
    await two.persistence.settled();
    const three = await again(two);
    three.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.is(three.peek('c'), true);
    return [two, three];
  }));

test('a damaged snapshot has another behind it', () =>
  withService(async (one) => {
    one.put('a', 10);
    await one.persistence.snapshot();
    one.put('b', 10);
    await one.persistence.snapshot();
    one.remove('a');
    await one.persistence.settled();
    const before = await contents(one);
    assert.is(files(one.dataDir, 'snapshot').length, 2);
    const copy = crash(one);
    const bad = files(copy, 'snapshot')[1];
    const bytes = readFileSync(bad);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(bad, bytes);
    const two = await open(copy, { now: one.clock.now });
    assert.equal(
      two.events.map(({ what }) => what),
      ['data-damaged', 'data-restored'],
    );
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.equal(await contents(two), before);
    await two.persistence.snapshot();
    const three = await again(two);
    assert.is(three.events.length, 1);
    return [two, three];
  }));

test('a snapshot ends the need for what was before it', () =>
  withService(async (one) => {
    for (let round = 0; round < 4; round++) {
      for (let i = 0; i < 50; i++) one.put(`${i}`, 10);
      for (let i = 0; i < 40; i++) one.remove(`${i}`);
      await one.persistence.snapshot();
    }
    assert.is(files(one.dataDir, 'snapshot').length, 2);
    assert.is(files(one.dataDir, 'log').length, 2);
    assert.is(one.persistence.figures().snapshots, 4);
    const before = await contents(one);
    const two = await again(one);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.equal(await contents(two), before);
    return [two];
  }));

test('a snapshot ends although there is no end of calls', async () => {
  const one = await start({}, {});
  const deadline = Date.now() + 60_000;
  let isWritten = false;
  const snapshot = one.persistence.snapshot().then(() => {
    isWritten = true;
  });
  for (let i = 0; !isWritten; i++) {
    assert.ok(Date.now() < deadline, 'the snapshot does not end');
    one.put(`${i % 5}`, 10);
    one.remove(`${i % 5}`);
    await one.persistence.settled();
  }
  await snapshot;
  await one.persistence.close();
});

test('a clean stop leaves a snapshot and nothing to replay', async () => {
  const one = await start();
  one.put('a', 10);
  await one.persistence.close();
  await one.persistence.close();
  assert.is(files(one.dataDir, 'snapshot').length, 1);
  const two = await open(one.dataDir, one.clock);
  two.service.mountSegment(segment(1, LENGTH), ALICE);
  assert.is(two.peek('a'), true);
  await two.persistence.close();
});

test('a folder is of one master, and of a master', async () => {
  const one = await start();
  const refused = (dataDir: string, why: RegExp) =>
    open(dataDir, { now: WALL }).then(
      () => assert.unreachable(),
      (error) => {
        assert.is(error.code, 'ERR_DATA_DIR');
        assert.match(error.message, why);
      },
    );
  await refused(one.dataDir, /another master uses it/);
  await one.persistence.close();
  const foreign = newFolder();
  mkdirSync(foreign);
  writeFileSync(join(foreign, 'thesis.txt'), '');
  await refused(foreign, /it has other things in it \(thesis\.txt\)/);
  const newer = crash(one);
  writeFileSync(join(newer, 'format'), 'mooncake-ts master 9\n');
  await refused(newer, /"mooncake-ts master 9\\n", not that of this version/);
  await refused(join(foreign, 'thesis.txt'), /EEXIST|ENOTDIR/);
  // Node's own way of making folders never ends there.
  if (process.platform === 'linux') await refused('/proc/mooncake/data', /ENOENT/);
  const deep = await open(join(newFolder(), 'a', 'b'), { now: WALL });
  await deep.persistence.close();
});

test('where nothing can be made durable nothing is acknowledged, and it comes back by itself', async () => {
  const one = await start();
  one.put('a', 10);
  await one.persistence.settled();
  const handle = await openFile(lastLog(one.dataDir), 'r');
  const files = Object.getPrototypeOf(handle);
  await handle.close();
  const { write, datasync } = files;
  for (const [method, broken] of [
    ['write', write],
    ['datasync', datasync],
  ] as const) {
    files[method] = () =>
      Promise.reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
    try {
      one.put(method, 10);
      await Promise.resolve(one.persistence.settled()).then(
        () => assert.unreachable(),
        (error) => assert.is(error.code, 'ERR_DATA_DIR'),
      );
      assert.throws(() => one.persistence.enter(), /no space left/);
      assert.is(one.persistence.figures().isFailing, true);
      assert.is(one.peek('a'), true);
      one.remove('a');
      await one.persistence.snapshot().then(
        () => assert.unreachable(),
        () => {},
      );
    } finally {
      files[method] = broken;
    }
    const stale = await again(one);
    stale.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.is(
      stale.events.some(({ what }) => what === 'data-damaged'),
      false,
    );
    await stale.persistence.close();
    await one.persistence.snapshot();
    assert.is(one.persistence.figures().isFailing, false);
    one.persistence.enter();
    one.put('a', 10);
    await one.persistence.settled();
    const two = await again(one);
    two.service.mountSegment(segment(1, LENGTH), ALICE);
    assert.equal(await contents(two), await contents(one));
    await two.persistence.close();
  }
  await one.persistence.close();
});

test('a disk that does not answer has failed: who waits is refused, and the end does not wait for it', async () => {
  const one = await start({}, { diskTimeoutMs: 1500 });
  await one.persistence.settled();
  const handle = await openFile(lastLog(one.dataDir), 'r');
  const files = Object.getPrototypeOf(handle);
  await handle.close();
  const { datasync } = files;
  files.datasync = () => new Promise(() => {});
  try {
    one.put('a', 10);
    await Promise.resolve(one.persistence.settled()).then(
      () => assert.unreachable(),
      (error) => assert.is(error.code, 'ERR_DATA_DIR'),
    );
    assert.throws(() => one.persistence.enter(), /fdatasync took longer than 1500 ms/);
    await one.persistence.snapshot().then(
      () => assert.unreachable(),
      () => {},
    );
  } finally {
    files.datasync = datasync;
  }
  await one.persistence.snapshot();
  one.put('b', 10);
  await one.persistence.settled();
  const two = await again(one);
  two.service.mountSegment(segment(1, LENGTH), ALICE);
  assert.equal(await contents(two), await contents(one));
  await two.persistence.close();
  files.datasync = () => new Promise(() => {});
  try {
    one.put('c', 10);
    await one.persistence.close();
  } finally {
    files.datasync = datasync;
  }
});

test.run();
