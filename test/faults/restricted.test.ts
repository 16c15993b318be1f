// A process that may do less (another user, and a seccomp filter that forbids process_vm_readv, process_vm_writev and
// io_uring_setup) reads and writes all the same, both ways, and its files go by threads.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { TransferEngine, type TransferEngineOptions } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { skip } from '../support/skip.js';
import { placed } from './bytes.js';
import { killAll, MIB, start, withEngine } from './support.js';

const CALLS = 'process_vm_readv,process_vm_writev,io_uring_setup';
const NOBODY = '65534';
const SIZE = 3 * MIB + 12_345;

test.after(killAll);

const script = fileURLToPath(new URL('./restrict.py', import.meta.url));
const restricted = (user: string) => ['python3', script, user, CALLS];

/** Why this machine cannot restrict a process so; undefined where it can. */
function missing(user: string): string | undefined {
  const [command, ...args] = [...restricted(user), process.execPath, '--version'];
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim().split('\n').pop());
}

const probe = await TransferEngine.create();
await probe.close();

const users = [
  { user: '-', who: 'the same user', enable: 'install python3' },
  { user: NOBODY, who: 'nobody', enable: 'run as root, from a folder that all users may read, with python3' },
];
const ways: TransferEngineOptions[] = probe.accelerated
  ? [{ transports: ['shm', 'file'] }, { transports: ['tcp', 'file'] }, {}]
  : [{ native: false }];

for (const { user, who, enable } of users) {
  const why = missing(user);
  for (const engine of ways) {
    const title = `${who}, ${JSON.stringify(engine)}: without process_vm_* and io_uring`;
    if (why !== undefined) {
      skip(test, title, why, enable);
      continue;
    }
    test(`${title}, between two that are restricted`, async () => {
      const options = { engine, bytes: SIZE, within: restricted(user) };
      const [a, b] = [await start(options), await start(options)];
      const used = new Set((await a.ask('exercise', b.name)) as string[]);
      if (engine.transports) assert.equal([...used], [engine.transports[0]]);
      await b.ask('exercise', a.name);
      assert.ok(!String(await a.ask('file')).startsWith('io_uring'), 'files go by io_uring');
      await Promise.all([a.ask('close'), b.ask('close')]);
      await Promise.all([a.exited, b.exited]);
    });

    test(`${title}, with one that is not`, () =>
      withEngine(engine, async (ours) => {
        const child = await start({ engine, bytes: SIZE, within: restricted(user) });
        const peer = await ours.open(child.name);
        const memory = await ours.register(new Uint8Array(SIZE));
        for (const [index, { id }] of peer.segments.entries()) {
          await ours.read(peer, one(id, 0, memory.id, 0, SIZE));
          assert.is(Buffer.compare(memory.memory, placed(SIZE, index + 1)), 0);
          await ours.write(peer, one(memory.id, 0, id, 0, SIZE));
        }
        await ours.unregister(memory.id);
        await child.ask('close');
        await child.exited;
      }));
  }
}

test.run();
