// A thousand peers that are opened, read, written and closed, some of them killed in the middle, leave no descriptor, no
// mapping and no thread behind; nor do a hundred engines.
import { readdirSync, readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { skip } from '../support/skip.js';
import { type Child, killAll, MIB, only, outcomes, start, started, withEngine } from './support.js';

setFlagsFromString('--expose_gc');
const gc = runInNewContext('gc') as () => void;

const CYCLES = 1000;
const KILL_EVERY = 100;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();

interface Open {
  descriptors: number;
  memory: number;
  threads: number;
}

function open(): Open {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    memory: maps.filter((line) => line.includes('memfd:mooncake')).length,
    threads: readdirSync('/proc/self/task').length,
  };
}

/** What is open when everything that is on its way out has gone, or after 20 s what is not going. */
async function settled(expected: Open): Promise<Open> {
  for (let i = 0; i < 200; i++) {
    // Memory stays mapped as long as a view of it is alive.
    gc();
    const now = open();
    if (now.descriptors <= expected.descriptors && now.memory <= expected.memory && now.threads <= expected.threads)
      break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return open();
}

function unchanged(now: Open, before: Open, what: string): void {
  for (const key of ['descriptors', 'memory', 'threads'] as const) {
    assert.ok(now[key] <= before[key], `${what}: ${key} were ${before[key]}, are ${now[key]}`);
  }
}

async function cycle(engine: TransferEngine, child: Child, kill: boolean): Promise<void> {
  const peer = await engine.open(child.name);
  const [ours, more] = [await engine.allocate(MIB), await engine.register(new Uint8Array(MIB))];
  const [allocated, registered] = peer.segments;
  const limits = { timeoutMs: 20_000 };
  const moves = started([
    engine.read(peer, one(allocated.id, 0, ours.id, 0, MIB), limits),
    engine.write(peer, one(more.id, 0, registered.id, 0, MIB), limits),
  ]);
  if (kill) {
    await child.kill();
    only(await outcomes('moves with a killed peer', moves), ['moved', 'ERR_PEER'], 'killed');
  } else {
    await Promise.all(moves);
  }
  peer.close();
  for (const { id } of [ours, more]) await engine.unregister(id);
}

const ways = probe.accelerated
  ? [{ transports: ['tcp'] }, { transports: ['shm'] }]
  : [{ transports: ['tcp'], native: false }];

for (const options of process.platform === 'linux' ? ways : []) {
  test(`${options.transports}: ${CYCLES} peers that come and go`, () =>
    withEngine(options, async (engine) => {
      let child = await start({ engine: options });
      const again = async (i: number) => {
        const kill = i % KILL_EVERY === KILL_EVERY - 1;
        await cycle(engine, child, kill);
        if (kill) child = await start({ engine: options });
      };
      for (let i = 0; i < 2 * KILL_EVERY; i++) await again(i);
      const before = await settled({ descriptors: 0, memory: 0, threads: 0 });
      for (let i = 0; i < CYCLES; i++) await again(i);
      unchanged(await settled(before), before, 'after the cycles');
      await child.kill();
    }));
}

if (process.platform === 'linux') {
  test('a hundred engines that come and go', async () => {
    const child = await start();
    const round = () => withEngine({}, (engine) => cycle(engine, child, false));
    for (let i = 0; i < 10; i++) await round();
    const before = await settled({ descriptors: 0, memory: 0, threads: 0 });
    for (let i = 0; i < 100; i++) await round();
    unchanged(await settled(before), before, 'after the engines');
    await child.kill();
  });
} else {
  skip(test, 'peers and engines that come and go', 'what is open is counted in /proc', 'run on Linux');
}

test.run();
