// When nothing is left: all NICs of the peer, and the peer itself.
import { fork } from 'node:child_process';
import { MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { engine, hash, linked, MiB, nic, nics, withSides } from './support.js';

test('all NICs down: an error with the reason; the link returns and the next batch succeeds', () =>
  withSides(2, 4 * MiB, async ({ a, peer, ours, theirs }) => {
    for (const at of [2, 3]) nic('cable-out', at);
    const started = Date.now();
    await a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB), { timeoutMs: 20_000 }).then(
      () => assert.unreachable('it cannot have arrived'),
      (error: unknown) => {
        assert.instance(error, MooncakeError);
        const { code, message } = error as MooncakeError;
        assert.is(code, 'ERR_PEER');
        assert.match(message, /rxe[01]/);
      },
    );
    console.log(`NOTE all rails down: told after ${Date.now() - started} ms`);
    for (const at of [2, 3]) nic('cable-in', at);
    await linked(a, 2);
    const { bytes } = await a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB));
    assert.is(bytes, 4 * MiB);
    assert.is(hash(theirs.memory), hash(ours.memory));
  }));

test('a peer that is killed, and started again on its name', async () => {
  const start = (port: number) =>
    new Promise<{ child: ReturnType<typeof fork>; name: string }>((resolve, reject) => {
      // Without this process's options: they are about what it runs.
      const child = fork(new URL('./peer.js', import.meta.url), [nics(1, 1), `${port}`], { execArgv: [] });
      child.once('message', (name: string) => resolve({ child, name }));
      child.once('exit', (code, signal) => reject(new Error(`the peer ended with ${signal ?? code}`)));
    });
  const a = await engine(nics(0, 1));
  const first = await start(0);
  try {
    const ours = await a.allocate(MiB);
    ours.memory.fill(5);
    let peer = await a.open(first.name);
    await linked(a, 1);
    await a.write(peer, one(ours.id, 0, peer.segments[0].id, 0, MiB));
    first.child.kill('SIGKILL');
    const error = await a
      .write(peer, one(ours.id, 0, peer.segments[0].id, 0, MiB), { timeoutMs: 20_000 })
      .catch((e) => e);
    assert.ok(['ERR_PEER', 'ERR_TIMEOUT'].includes(error.code), `${error}`);
    const second = await start(Number(first.name.split(':').at(-1)));
    try {
      peer = await a.open(second.name);
      await linked(a, 1);
      const { verifiedBytes } = await a.write(peer, one(ours.id, 0, peer.segments[0].id, 0, MiB));
      assert.is(verifiedBytes, MiB);
    } finally {
      second.child.kill('SIGKILL');
    }
  } finally {
    first.child.kill('SIGKILL');
    await a.close();
  }
});

test.run();
