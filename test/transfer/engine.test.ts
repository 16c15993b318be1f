// TransferEngine over each data plane: segments, peers, moves, notifications, limits, and its end.
import { MooncakeError, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { create, PAIRS, PLANES, withEngines } from '../support/engines.js';
import { rejects, sleep, throws } from './support.js';

for (const pair of PAIRS) {
  test(`${pair.name}: what is read and written is what was there, and nothing beside it changes`, () =>
    withEngines(pair, async (a, b) => {
      const theirs = await b.allocate(1 << 20, { name: 'kv' });
      theirs.memory.set(pattern(1 << 20, 7));
      const ours = await a.register(pattern(1 << 20, 9));
      const peer = await a.open(b.name);
      assert.is(peer.name, b.name);
      assert.is(peer.generation, b.generation);
      const [segment] = peer.segments;
      assert.is(segment.name, 'kv');
      assert.is(segment.length, 1 << 20);
      assert.is(segment.address, theirs.address);
      const [expectedOurs, expectedTheirs] = [ours.memory.slice(), theirs.memory.slice()];
      const read = await a.read(peer, one(segment.id, 100, ours.id, 7, 70_001));
      assert.is(read.bytes, 70_001);
      expectedOurs.set(expectedTheirs.subarray(100, 70_101), 7);
      assert.equal(ours.memory, expectedOurs);
      const write = await a.write(peer, one(ours.id, 3, segment.id, 1 << 19, 99_999));
      assert.is(write.bytes, 99_999);
      expectedTheirs.set(expectedOurs.subarray(3, 100_002), 1 << 19);
      assert.equal(theirs.memory, expectedTheirs);
    }));

  test(`${pair.name}: many records, of no bytes too, in one batch`, () =>
    withEngines(pair, async (a, b) => {
      const block = 4096;
      const count = 2000;
      const theirs = await b.allocate(count * block);
      theirs.memory.set(pattern(count * block, 5));
      const ours = await a.allocate(count * block);
      const peer = await a.open(b.name);
      const records = Array.from({ length: count }, (_, index) => ({
        sourceSegment: peer.segments[0].id,
        destinationSegment: ours.id,
        sourceOffset: ((index * 7) % count) * block,
        destinationOffset: index * block,
        length: index % 10 === 3 ? 0 : block,
      }));
      const report = await a.read(peer, descriptorsOf(records));
      assert.is(report.bytes, (count - count / 10) * block);
      for (const { sourceOffset, destinationOffset, length } of records) {
        const expected =
          length === 0 ? new Uint8Array(block) : theirs.memory.subarray(sourceOffset, sourceOffset + block);
        const actual = ours.memory.subarray(destinationOffset, destinationOffset + block);
        assert.is(Buffer.compare(actual, expected), 0, `record to ${destinationOffset}`);
      }
      assert.is((await a.read(peer, descriptorsOf([]))).bytes, 0);
    }));

  test(`${pair.name}: ranges outside of what the peer has, or may be asked for, are refused and nothing is touched`, () =>
    withEngines(pair, async (a, b) => {
      const readOnly = await b.allocate(4096, { access: 'read', name: 'constant' });
      const ours = await a.allocate(8192);
      const peer = await a.open(b.name);
      const [{ id, readOnly: said }] = peer.segments;
      assert.is(said, true);
      await rejects(a.read(peer, one(id, 4000, ours.id, 0, 97)), 'ERR_SEGMENT');
      await rejects(a.read(peer, one(id + 1000, 0, ours.id, 0, 1)), 'ERR_SEGMENT');
      await rejects(a.read(peer, one(id, 0, ours.id, 8000, 193)), 'ERR_SEGMENT');
      await rejects(a.read(peer, one(id, 0, ours.id + 1000, 0, 1)), 'ERR_SEGMENT');
      ours.memory.fill(1);
      await rejects(a.write(peer, one(ours.id, 0, id, 0, 4096)), 'ERR_SEGMENT');
      assert.equal(readOnly.memory, new Uint8Array(4096));
      assert.is((await a.read(peer, one(id, 0, ours.id, 0, 4096))).bytes, 4096);
    }));

  test(`${pair.name}: segments registered later are found by refresh, those taken away are gone`, () =>
    withEngines(pair, async (a, b) => {
      const first = await b.allocate(4096, { name: 'first' });
      const ours = await a.allocate(4096);
      const peer = await a.open(b.name);
      const old = peer.segments[0];
      const second = await b.register(pattern(4096), { name: 'second' });
      assert.is(peer.segments.length, 1);
      await peer.refresh();
      assert.equal(peer.segments.map(({ name }) => name).sort(), ['first', 'second']);
      const at = peer.at(second.address + 100n, 50);
      assert.is(at.offset, 100);
      await a.read(peer, one(at.segment, at.offset, ours.id, 0, 50));
      assert.equal(ours.memory.slice(0, 50), pattern(4096).slice(100, 150));
      throws(() => peer.at(second.address + 4000n, 97), 'ERR_SEGMENT', 'address');
      await b.unregister(first.id);
      await rejects(a.read(peer, one(old.id, 0, ours.id, 0, 16)), 'ERR_SEGMENT');
      assert.is(await a.open(b.name), peer);
      assert.equal(
        peer.segments.map(({ name }) => name),
        ['second'],
      );
    }));

  test(`${pair.name}: a peer that was started again on its name is noticed, and found by refresh`, async () => {
    const a = await create(pair.a);
    let b = await create(pair.b);
    const { name } = b;
    const old = await b.allocate(1 << 16);
    old.memory.fill(1);
    const ours = await a.allocate(1 << 16);
    const peer = await a.open(name);
    await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 1 << 16));
    await b.close();
    await rejects(a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 1 << 16)), 'ERR_PEER');
    b = await create(pair.b, { port: Number(name.split(':')[1]) });
    assert.is(b.name, name);
    (await b.allocate(1 << 16)).memory.fill(2);
    ours.memory.fill(0);
    await rejects(a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 1 << 16)), 'ERR_PEER');
    assert.ok(ours.memory.every((byte) => byte === 0));
    await peer.refresh();
    assert.is(peer.generation, b.generation);
    await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 1 << 16));
    assert.ok(ours.memory.every((byte) => byte === 2));
    await Promise.all([a.close(), b.close()]);
  });

  test(`${pair.name}: notifications and probes`, () =>
    withEngines(pair, async (a, b) => {
      await a.notify(b.name, { name: 'early', message: '1' });
      const got: string[] = [];
      const end = b.onNotification(({ name, message }) => got.push(`${name}=${message}`));
      await a.notify(b.name, { name: 'prefill "7"', message: 'done ✓' });
      await sleep(10);
      assert.equal(got, ['early=1', 'prefill "7"=done ✓']);
      end();
      assert.is(await a.probe(b.name), true);
      assert.is(await a.probe('127.0.0.1:1', { timeoutMs: 2000 }), false);
      await rejects(a.notify('127.0.0.1:1', { name: 'n', message: 'm' }, { timeoutMs: 2000 }), 'ERR_PEER');
    }));

  test(`${pair.name}: batches at the same time, to several peers`, () =>
    withEngines(pair, async (a, b) => {
      const c = await create(pair.b);
      try {
        const size = 3 << 20;
        const ours = await a.allocate(16 * size);
        for (const [seed, engine] of [b, c].entries())
          (await engine.allocate(size)).memory.set(pattern(size, seed + 1));
        const peers = await Promise.all([b, c].map(({ name }) => a.open(name)));
        await Promise.all(
          Array.from({ length: 16 }, (_, index) => {
            const peer = peers[index % 2];
            return a.read(peer, one(peer.segments[0].id, 0, ours.id, index * size, size));
          }),
        );
        const expected = [pattern(size, 1), pattern(size, 2)];
        for (let index = 0; index < 16; index++) {
          const actual = ours.memory.subarray(index * size, (index + 1) * size);
          assert.is(Buffer.compare(actual, expected[index % 2]), 0, `batch ${index}`);
        }
        const { links, batches, segments } = a.statistics();
        assert.is(batches.completed, 16);
        assert.is(batches.active, 0);
        assert.equal(segments, { count: 1, bytes: 16 * size });
        const carried = links.reduce((sum, link) => sum + link.bytes, 0);
        assert.is(carried, 16 * size);
      } finally {
        await c.close();
      }
    }));

  test(`${pair.name}: what is aborted or cancelled ends so, and the engine goes on`, () =>
    withEngines(pair, async (a, b) => {
      const size = 32 << 20;
      const ours = await a.allocate(size);
      await b.allocate(size);
      const peer = await a.open(b.name);
      const id = peer.segments[0].id;
      const controller = new AbortController();
      const aborted = a.read(peer, one(id, 0, ours.id, 0, size), { signal: controller.signal });
      controller.abort();
      await rejects(aborted, 'ERR_ABORTED');
      const batch = a.submit('write', peer, one(ours.id, 0, id, 0, size));
      batch.cancel();
      await rejects(batch.done, 'ERR_ABORTED');
      await rejects(a.read(peer, one(id, 0, ours.id, 0, 1), { signal: AbortSignal.abort() }), 'ERR_ABORTED');
      assert.is((await a.read(peer, one(id, 0, ours.id, 0, 1000))).bytes, 1000);
    }));
}

for (const plane of PLANES) {
  test(`${plane.name}: copies between segments, files among them`, async () => {
    const { mkdtempSync, readFileSync, rmSync, writeFileSync } = await import('node:fs');
    const { tmpdir } = await import('node:os');
    const { join } = await import('node:path');
    const folder = mkdtempSync(join(tmpdir(), 'mooncake-engine-'));
    const engine = await create(plane);
    try {
      const [a, b] = [await engine.allocate(1 << 20), await engine.register(new Uint8Array(1 << 20))];
      a.memory.set(pattern(1 << 20, 3));
      await engine.copy(one(a.id, 4096, b.id, 0, 500_000));
      assert.equal(b.memory.subarray(0, 500_000), a.memory.subarray(4096, 504_096));
      const path = join(folder, 'tier');
      const file = await engine.openFile(path, { length: 1 << 20 });
      assert.is(file.length, 1 << 20);
      await engine.copy(one(a.id, 0, file.id, 0, 1 << 20));
      assert.is(Buffer.compare(readFileSync(path), a.memory), 0);
      b.memory.fill(0);
      await engine.copy(one(file.id, 8192, b.id, 0, 65_536));
      assert.is(Buffer.compare(b.memory.subarray(0, 65_536), a.memory.subarray(8192, 8192 + 65_536)), 0);
      await engine.unregister(file.id);
      await rejects(engine.copy(one(file.id, 0, b.id, 0, 1)), 'ERR_SEGMENT');
      const constant = join(folder, 'constant');
      writeFileSync(constant, pattern(8192));
      const readOnly = await engine.openFile(constant, { access: 'read' });
      assert.is(readOnly.length, 8192);
      await rejects(engine.copy(one(a.id, 0, readOnly.id, 0, 4096)), 'ERR_SEGMENT');
      assert.equal(new Uint8Array(readFileSync(constant)), pattern(8192));
      const error = await engine.openFile(join(folder, 'none', 'such'), { access: 'read' }).catch((reason) => reason);
      assert.instance(error, MooncakeError);
    } finally {
      await engine.close();
      rmSync(folder, { recursive: true });
    }
  });

  test(`${plane.name}: IPv6, and names of hosts`, async () => {
    for (const host of ['::1', 'localhost']) {
      const [a, b] = [await create(plane, { host }), await create(plane, { host })];
      if (host === '::1') assert.match(b.name, /^\[::1\]:\d+$/);
      (await b.allocate(4096)).memory.fill(6);
      const ours = await a.allocate(4096);
      const peer = await a.open(b.name);
      await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 4096));
      assert.ok(ours.memory.every((byte) => byte === 6));
      assert.is(await a.probe(b.name), true);
      await Promise.all([a.close(), b.close()]);
    }
  });

  test(`${plane.name}: shared memory of workers, and views into the middle of a buffer`, async () => {
    await withEngines({ a: plane, b: plane }, async (a, b) => {
      const shared = new Uint8Array(new SharedArrayBuffer(1 << 16), 4096, 8192);
      shared.set(pattern(8192, 4));
      await b.register(shared);
      const ours = await a.register(new Uint8Array(new SharedArrayBuffer(8192)));
      const peer = await a.open(b.name);
      await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 8192));
      assert.equal(new Uint8Array(ours.memory), pattern(8192, 4));
      ours.memory.fill(8);
      await a.write(peer, one(ours.id, 0, peer.segments[0].id, 4096, 4096));
      assert.is(shared[4095], pattern(8192, 4)[4095]);
      assert.is(shared[4096], 8);
      assert.is(new Uint8Array(shared.buffer)[4096 + 8192], 0);
    });
  });

  test(`${plane.name}: close ends what is under way, and refuses what comes after`, async () => {
    const [a, b] = [await create(plane), await create(plane)];
    const size = 32 << 20;
    const ours = await a.allocate(size);
    await b.allocate(size);
    const peer = await a.open(b.name);
    const moving = Array.from({ length: 4 }, () => a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, size)));
    const ended = moving.map((move) => rejects(move, 'ERR_CLOSED'));
    await Promise.all([a.close(), ...ended]);
    await a.close();
    await rejects(a.allocate(1), 'ERR_CLOSED');
    await rejects(a.open(b.name), 'ERR_CLOSED');
    await rejects(a.read(peer, one(0, 0, 0, 0, 1)), 'ERR_CLOSED');
    await rejects(a.notify(b.name, { name: 'n', message: 'm' }), 'ERR_CLOSED');
    await b.close();
  });

  test(`${plane.name}: bad arguments are named`, async () => {
    const engine = await create(plane);
    await rejects(engine.allocate(0), 'ERR_INVALID_ARGUMENT', 'length');
    await rejects(engine.allocate(1, { access: 'write' as 'read' }), 'ERR_INVALID_ARGUMENT', 'options.access');
    await engine.allocate(1, { name: 'x' });
    await rejects(engine.allocate(1, { name: 'x' }), 'ERR_INVALID_ARGUMENT', 'options.name');
    await rejects(engine.unregister(77), 'ERR_SEGMENT', 'segment');
    await rejects(engine.open('nowhere'), 'ERR_INVALID_ARGUMENT', 'name');
    await rejects(engine.open('127.0.0.1:1', { timeoutMs: 2000 }), 'ERR_PEER');
    await rejects(engine.notify(engine.name, { name: 'n' } as never), 'ERR_INVALID_ARGUMENT', 'notification.message');
    throws(() => engine.submit('erase' as 'read', {} as never, one(0, 0, 0, 0, 1)), 'ERR_INVALID_ARGUMENT', 'op');
    throws(() => engine.submit('read', {} as never, one(0, 0, 0, 0, 1)), 'ERR_INVALID_ARGUMENT', 'peer');
    await rejects(engine.copy({} as never), 'ERR_INVALID_ARGUMENT', 'descriptors');
    if (!plane.native) await rejects(engine.register({ address: 4096n, length: 1 }), 'ERR_INVALID_ARGUMENT', 'memory');
    await engine.close();
  });
}

test('engines that never poll, and those that poll long, move the same bytes', async () => {
  for (const spinUs of [0, 10_000]) {
    const [a, b] = await Promise.all([1, 2].map(() => TransferEngine.create({ spinUs })));
    const theirs = await b.allocate(1 << 20, { name: 'kv' });
    theirs.memory.set(pattern(1 << 20, spinUs));
    const ours = await a.allocate(1 << 20);
    const peer = await a.open(b.name);
    for (let at = 0; at < 1 << 20; at += 1 << 14) {
      await a.read(peer, one(peer.segments[0].id, at, ours.id, at, 1 << 14));
    }
    assert.equal(ours.memory, theirs.memory);
    await Promise.all([a.close(), b.close()]);
  }
});

test('options of create are checked, and metadata that is not served is refused', async () => {
  const bad = (options: object, code: string, argument?: string) =>
    rejects(TransferEngine.create(options as never), code, argument);
  await bad({ metadata: 'k8s://default' }, 'ERR_NOT_SUPPORTED');
  await bad({ metadata: 'paper' }, 'ERR_INVALID_ARGUMENT', 'options.metadata');
  await bad({ host: '0.0.0.0' }, 'ERR_INVALID_ARGUMENT', 'options.advertise');
  await bad({ port: 65536 }, 'ERR_INVALID_ARGUMENT', 'options.port');
  await bad({ transports: ['pigeon'] }, 'ERR_INVALID_ARGUMENT', 'options.transports');
  await bad({ timeoutMs: 0 }, 'ERR_INVALID_ARGUMENT', 'options.timeoutMs');
  await bad({ spinUs: -1 }, 'ERR_INVALID_ARGUMENT', 'options.spinUs');
  await bad({ spinUs: 10_001 }, 'ERR_INVALID_ARGUMENT', 'options.spinUs');
  await bad({ native: 1 }, 'ERR_INVALID_ARGUMENT', 'options.native');
  const first = await TransferEngine.create();
  await bad({ port: Number(first.name.split(':')[1]) }, 'ERR_PEER');
  await bad({ port: Number(first.name.split(':')[1]), native: false }, 'ERR_PEER');
  await first.close();
});

test.run();
