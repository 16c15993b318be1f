// Peers in processes of their own that die, stop and come back; memory that is taken away while it moves; what is left over.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { create, PAIRS, PLANES, type Plane, placeOf, withEngines } from '../support/engines.js';
import { rejects, sleep } from './support.js';

const SIZE = 8 * 2 ** 20;
const file = fileURLToPath(new URL('./engine-child.js', import.meta.url));
const children = new Set<ChildProcess>();
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

async function start(plane: Plane, port = 0, seed = 1) {
  const child = spawn(process.execPath, [file, plane.name, `${port}`, `${seed}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.add(child);
  const exited = once(child, 'exit').finally(() => children.delete(child));
  const [text] = await Promise.race([
    once(child.stdout!.setEncoding('utf8'), 'data'),
    exited.then(() => Promise.reject(new Error('the child died'))),
  ]);
  return { child, name: (text as string).trim(), exited };
}

/** What the child's memory holds, by the seed that it was started with. */
const expected = new Map([1, 7].map((seed) => [seed, Uint8Array.from({ length: SIZE }, (_, i) => (i + seed) % 251)]));
const holds = (memory: Uint8Array, seed: number) => Buffer.compare(memory, expected.get(seed)!) === 0;
const codes = (promises: Promise<unknown>[]) =>
  Promise.all(
    promises.map((promise) =>
      promise.then(
        () => 'resolved',
        (error) => error.code as string,
      ),
    ),
  );

async function busy(engine: TransferEngine, name: string) {
  const peer = await engine.open(name);
  const { id } = peer.segments[0];
  const ours = await engine.allocate(SIZE);
  const read = (timeoutMs?: number) => engine.read(peer, one(id, 0, ours.id, 0, SIZE), { timeoutMs });
  await read();
  assert.ok(holds(ours.memory, 1));
  return { peer, ours, read };
}

for (const { a, b, name } of PAIRS) {
  test(`${name}: a peer that is killed: what is under way fails, and its next run is found by refresh`, async () => {
    const engine = await create(a);
    const first = await start(b);
    const { peer, ours, read } = await busy(engine, first.name);
    const moves = codes(Array.from({ length: 40 }, () => read()));
    first.child.kill('SIGKILL');
    for (const code of await moves) assert.ok(code === 'ERR_PEER' || code === 'resolved', code);
    await first.exited;
    await rejects(read(), 'ERR_PEER');
    const second = await start(b, placeOf(first.name).port, 7);
    await rejects(read(), 'ERR_PEER');
    await peer.refresh();
    await engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE));
    assert.ok(holds(ours.memory, 7));
    await engine.close();
    second.child.stdin!.end();
    assert.is((await second.exited)[0], 0);
  });

  test(`${name}: a peer that is stopped: the batch ends by its deadline, and later ones work when it goes on`, async () => {
    const engine = await create(a);
    const { child, name: address, exited } = await start(b);
    const { ours, read } = await busy(engine, address);
    child.kill('SIGSTOP');
    // Shared memory needs nobody on the other side.
    const allowed = ['ERR_TIMEOUT', 'ERR_PEER', ...(a.native && b.native ? ['resolved'] : [])];
    for (const code of await codes([read(1500), read(1500)])) assert.ok(allowed.includes(code), code);
    ours.memory.fill(0);
    child.kill('SIGCONT');
    await sleep(50);
    assert.ok(
      ours.memory.every((byte) => byte === 0),
      'written after the end',
    );
    const peer = await engine.open(address);
    await engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE));
    assert.ok(holds(ours.memory, 1));
    await engine.close();
    child.stdin!.end();
    assert.is((await exited)[0], 0);
  });

  test(`${name}: memory is not touched any more once it was unregistered`, () =>
    withEngines({ a, b }, async (here, there) => {
      const theirs = await there.allocate(SIZE);
      const ours = await here.allocate(SIZE);
      const peer = await here.open(there.name);
      const { id } = peer.segments[0];
      for (let round = 0; round < 5; round++) {
        const moves = codes([
          here.write(peer, one(ours.id, 0, id, 0, SIZE)),
          here.write(peer, one(ours.id, 0, id, 0, SIZE)),
        ]);
        if (round === 4) {
          await there.unregister(theirs.id);
          theirs.memory.fill(0xee);
          await sleep(30);
          assert.ok(theirs.memory.every((byte) => byte === 0xee));
        }
        for (const code of await moves) assert.ok(['resolved', 'ERR_SEGMENT', 'ERR_PEER'].includes(code), code);
      }
      // Ours: refused at once for new moves, and released when the old one has ended.
      const last = await there.allocate(SIZE);
      await peer.refresh();
      const move = codes([here.read(peer, one(peer.at(last.address, SIZE).segment, 0, ours.id, 0, SIZE))]);
      const released = here.unregister(ours.id);
      await rejects(here.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 1)), 'ERR_SEGMENT');
      await released;
      ours.memory.fill(0xdd);
      assert.equal(await move, ['resolved']);
      assert.ok(ours.memory.every((byte) => byte === 0xdd));
    }));
}

for (const plane of PLANES) {
  test(`${plane.name}: thousands of segments, and batches over all of them`, () =>
    withEngines({ a: plane, b: plane }, async (a, b) => {
      const count = 1500;
      const all = pattern(count * 16, 3);
      await Promise.all(
        Array.from({ length: count }, (_, index) =>
          b.register(all.slice(index * 16, index * 16 + 16), { name: `${index}` }),
        ),
      );
      const ours = await a.allocate(count * 16);
      const peer = await a.open(b.name);
      assert.is(peer.segments.length, count);
      const records = peer.segments.map(({ id, name }) => ({
        sourceSegment: id,
        destinationSegment: ours.id,
        sourceOffset: 0,
        destinationOffset: 16 * Number(name),
        length: 16,
      }));
      await a.read(peer, descriptorsOf(records));
      assert.is(Buffer.compare(ours.memory, all), 0);
    }));

  test(`${plane.name}: opening and closing leaves nothing behind`, async () => {
    const handles = () => readdirSync('/proc/self/fd').length;
    const threads = () => readdirSync('/proc/self/task').length;
    const cycle = () =>
      withEngines({ a: plane, b: plane }, async (a, b) => {
        await b.allocate(65_536);
        const ours = await a.allocate(65_536);
        const peer = await a.open(b.name);
        await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 65_536));
        await a.probe(b.name);
        // Its links are still being closed when the engines are.
        peer.close();
      });
    for (let i = 0; i < 5; i++) await cycle();
    await sleep(50);
    const before = { handles: handles(), threads: threads() };
    for (let i = 0; i < 100; i++) await cycle();
    for (let tries = 0; tries < 100 && handles() > before.handles + 4; tries++) await sleep(20);
    assert.ok(handles() <= before.handles + 4, `${before.handles} descriptors, then ${handles()}`);
    assert.ok(threads() <= before.threads + 1, `${before.threads} threads, then ${threads()}`);
  });
}

test.run();
