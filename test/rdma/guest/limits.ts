// What goes wrong before anything moves: NICs that are not there, memory that cannot be locked; and what 200 connections leave.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { MooncakeError, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { engine, hash, linked, MiB, nic, nics, sleep, withSides } from './support.js';

async function refusal(work: Promise<unknown>, code: string, pattern: RegExp): Promise<void> {
  const error = await work.then(
    () => assert.unreachable('not refused'),
    (reason: MooncakeError) => reason,
  );
  assert.instance(error, MooncakeError);
  assert.is(error!.code, code, `${error}`);
  assert.match(error!.message, pattern);
}

test('a NIC that is not there, a GID that is not there, a port without link: named with the cause', async () => {
  await refusal(engine('mlx5_9'), 'ERR_NOT_SUPPORTED', /mlx5_9/);
  const gid = TransferEngine.create({ transports: ['rdma'], rdma: { devices: 'rxe0', gidIndex: 77 } });
  await refusal(gid, 'ERR_NOT_SUPPORTED', /rxe0.*77/);
  nic('down', 3);
  await refusal(engine('rxe3'), 'ERR_NOT_SUPPORTED', /rxe3.*port/);
  // The others go on.
  const both = await engine('rxe3,rxe2');
  await both.close();
  nic('up', 3);
});

test('memory that cannot be locked: said with the limit', async () => {
  const script = `
    import { TransferEngine } from 'mooncake-ts';
    const engine = await TransferEngine.create({ transports: ['rdma'], rdma: { devices: 'rxe0' } });
    const error = await engine.allocate(64 * 2 ** 20).catch((error) => error);
    console.log(error.code, error.message);
    await engine.close();`;
  const run = `ulimit -l 1024; exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock --ambient-caps -all "$0" --input-type=module -e "$1"`;
  const said = execFileSync('bash', ['-c', run, process.execPath, script], {
    encoding: 'utf8',
    cwd: new URL('.', import.meta.url),
  });
  assert.match(said, /rxe0.*ulimit -l/);
});

test('memory that was taken back: its batch ends with ERR_SEGMENT, and another one goes on', () =>
  withSides(1, 4 * MiB, async ({ a, b, peer, ours, theirs }) => {
    const lent = await b.allocate(MiB);
    await peer.refresh();
    const kept = peer.segments.find(({ id }) => id === lent.id)!;
    await b.unregister(lent.id);
    const other = a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB));
    await refusal(a.write(peer, one(ours.id, 0, kept.id, 0, MiB)), 'ERR_SEGMENT', /rxe0.*remote access error/);
    assert.is((await other).verifiedBytes, 4 * MiB);
    assert.is(hash(theirs.memory), hash(ours.memory));
    await linked(a, 1);
  }));

test('a dma-buf: these NICs take none, and say so', async () => {
  const a = await engine(nics(0, 2));
  const fd = openSync('/proc/self/exe', 'r');
  await refusal(a.register({ kind: 'dma-buf', fd, length: 4096 }), 'ERR_NOT_SUPPORTED', /rxe0.*dma-buf.*rxe1/);
  assert.is(a.statistics().segments.count, 0);
  closeSync(fd);
  await a.close();
});

test('200 connections leave no descriptor and no thread', async () => {
  const b = await engine(nics(1, 1));
  await b.allocate(MiB);
  const a = await engine(nics(0, 1));
  const ours = await a.allocate(MiB);
  const counts = () => ({
    fds: readdirSync('/proc/self/fd').length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]),
  });
  const cycle = async () => {
    const peer = await a.open(b.name);
    await linked(a, 1);
    await a.write(peer, one(ours.id, 0, peer.segments[0].id, 0, 4096));
    peer.close();
    await linked(a, 0);
  };
  for (let at = 0; at < 5; at++) await cycle();
  const before = counts();
  for (let at = 0; at < 195; at++) await cycle();
  await sleep(200);
  const after = counts();
  assert.ok(after.fds <= before.fds + 2, JSON.stringify([before, after]));
  assert.ok(after.threads <= before.threads + 1, JSON.stringify([before, after]));
  await Promise.all([a.close(), b.close()]);
});

test.run();
