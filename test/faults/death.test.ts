// Peers that are killed, stopped and started again, in processes of their own, over each transport: what is under way ends
// by itself and long before its deadline, nothing of it is wrong, and the engine goes on with others.
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { placed } from './bytes.js';
import { type Child, killAll, MIB, only, outcomes, settles, start, started, withEngine } from './support.js';

const SIZE = 16 * MIB;
const EXPECTED = placed(SIZE, 1);
const WAYS = [{ transports: ['tcp'] }, { transports: ['shm'] }, { transports: ['shm', 'tcp'] }];

test.after(killAll);

const accelerated = await TransferEngine.create().then(async (engine) => {
  await engine.close();
  return engine.accelerated;
});
if (!accelerated) console.log('NOTE the accelerator is not there: faults are tested over TypeScript alone');
const ways = accelerated ? WAYS : [{ transports: ['tcp'], native: false }];

/** Reads and writes one after the other until one fails. By default their deadline is too far away to be what ends them. */
async function traffic(
  engine: TransferEngine,
  child: Child,
  { stop = (): boolean => false, timeoutMs = 120_000 } = {},
): Promise<unknown> {
  const peer = await engine.open(child.name);
  const [read, write] = [await engine.allocate(SIZE), await engine.register(placed(SIZE, 2))];
  const [allocated, registered] = peer.segments;
  const limits = { timeoutMs };
  for (;;) {
    if (stop()) return undefined;
    await Promise.all([
      engine.read(peer, one(allocated.id, 0, read.id, 0, SIZE), limits),
      engine.write(peer, one(write.id, 0, registered.id, 0, SIZE), limits),
    ]);
    assert.is(Buffer.compare(read.memory, EXPECTED), 0, 'what was read');
  }
}

for (const engineOptions of ways) {
  const way = engineOptions.transports.join(' and ');

  test(`${way}: a peer that is killed`, () =>
    withEngine(engineOptions, async (engine) => {
      const [child, other] = [
        await start({ engine: engineOptions, bytes: SIZE }),
        await start({ engine: engineOptions, bytes: SIZE }),
      ];
      const busy = started([1, 2, 3].map(() => traffic(engine, child)));
      let enough = false;
      const unconcerned = started([traffic(engine, other, { stop: () => enough })]);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await child.kill();
      only(await outcomes('traffic with a killed peer', busy), ['ERR_PEER'], 'with a killed peer');
      const peer = await engine.open(child.name).catch((error) => error.code);
      assert.is(peer, 'ERR_PEER');
      enough = true;
      assert.equal(await outcomes('traffic with the other', unconcerned), ['moved']);
      await other.kill();
    }));

  test(`${way}: a peer that is stopped, and goes on`, () =>
    withEngine(engineOptions, async (engine) => {
      const child = await start({ engine: engineOptions, bytes: SIZE });
      const busy = started([1, 2].map(() => traffic(engine, child, { timeoutMs: 5000 })));
      await new Promise((resolve) => setTimeout(resolve, 300));
      child.process.kill('SIGSTOP');
      // It may go on at any time, so links try to connect again until the deadline.
      only(await outcomes('traffic with a stopped peer', busy), ['ERR_PEER', 'ERR_TIMEOUT'], 'with a stopped peer');
      child.process.kill('SIGCONT');
      const peer = await engine.open(child.name);
      const ours = await engine.allocate(SIZE);
      await engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE));
      assert.is(Buffer.compare(ours.memory, EXPECTED), 0);
      await child.kill();
    }));

  test(`${way}: a peer that is started again on its port`, () =>
    withEngine(engineOptions, async (engine) => {
      const first = await start({ engine: engineOptions, bytes: MIB });
      const ours = await engine.allocate(MIB);
      const peer = await engine.open(first.name);
      const old = peer.segments[0].id;
      await engine.read(peer, one(old, 0, ours.id, 0, MIB));
      await first.kill();
      const port = Number(first.name.split(':').pop());
      const second = await start({ engine: { ...engineOptions, port }, bytes: MIB });
      assert.is(second.name, first.name);
      const before = peer.generation;
      ours.memory.fill(0);
      // Whatever the old number may mean to the new run, nothing is read by it.
      const stale = await outcomes('a move with a run that is over', [engine.read(peer, one(old, 0, ours.id, 0, MIB))]);
      only(stale, ['ERR_PEER'], 'with a run that is over');
      assert.ok(ours.memory.every((byte) => byte === 0));
      await peer.refresh();
      assert.is.not(peer.generation, before);
      await engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, MIB));
      assert.is(Buffer.compare(ours.memory, placed(MIB, 1)), 0);
      await second.kill();
    }));
}

test('an engine whose peers read from it goes on when they are killed', () =>
  withEngine({}, async (engine) => {
    const memory = await engine.allocate(SIZE, { name: 'allocated' });
    memory.memory.set(EXPECTED);
    const readers = await Promise.all([1, 2, 3].map(() => start({ bytes: SIZE })));
    const asked = readers.map((reader) => reader.ask('read', engine.name).catch(() => 'killed'));
    await Promise.all([readers[0].kill(), readers[1].kill()]);
    await settles('what killed readers were asked', Promise.all(asked.slice(0, 2)));
    assert.is(await asked[2], true);
    await settles('unregistering', engine.unregister(memory.id));
    await readers[2].kill();
  }));

test.run();
