// Peers that die, stop, restart or merely compute, in processes of their own.
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Peer, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { rejects, sleep } from './support.js';

const SIZE = 64 * 2 ** 20;
const file = fileURLToPath(new URL('./child.js', import.meta.url));

interface Child {
  process: ChildProcess;
  address: string;
  exited: Promise<number | null>;
}

const children = new Set<ChildProcess>();
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

async function start(port = 0, heartbeatMs = 250, deadAfterMs = 900): Promise<Child> {
  const child = spawn(process.execPath, [file, ...[port, heartbeatMs, deadAfterMs].map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
  void exited.then(() => children.delete(child));
  const address = await new Promise<string>((resolve, reject) => {
    child.stdout!.setEncoding('utf8').once('data', (text: string) => resolve(text.trim()));
    child.once('exit', () => reject(new Error('the child died')));
  });
  return { process: child, address, exited };
}

/** A read, a write and a call that are all under way. */
async function busy(peer: Peer, transfer: TcpTransfer) {
  const { id } = await peer.segment('kv');
  const [ours, more] = [transfer.register(new Uint8Array(SIZE)), transfer.register(new Uint8Array(SIZE))];
  const limits = { timeoutMs: 20_000 };
  return [
    peer.call('hang', null, limits),
    peer.read(one(id, 0, ours, 0, SIZE), limits),
    peer.write(one(more, 0, id, 0, SIZE), limits),
  ];
}

for (const [signal, why] of [
  ['SIGKILL', 'killed'],
  ['SIGSTOP', 'stopped'],
] as const) {
  test(`a peer that is ${why}: everything pending ends with ERR_PEER, and so do later calls`, async () => {
    const transfer = await TcpTransfer.listen();
    const child = await start();
    const peer = await transfer.connect(child.address);
    const pending = await busy(peer, transfer);
    const ended = Promise.all(pending.map((promise) => rejects(promise, 'ERR_PEER', 'peer')));
    child.process.kill(signal);
    await ended;
    assert.is((await peer.closed).code, 'ERR_PEER');
    await rejects(peer.call('ping', null), 'ERR_PEER');
    await rejects(transfer.connect(child.address, { timeoutMs: 5000 }), 'ERR_PEER');
    child.process.kill('SIGKILL');
    await transfer.close();
  });
}

test('a peer that restarts on the same port is another one', async () => {
  const transfer = await TcpTransfer.listen();
  const child = await start();
  const peer = await transfer.connect(child.address);
  child.process.kill('SIGKILL');
  await Promise.all([peer.closed, child.exited]);
  const next = await start(Number(child.address.split(':').pop()));
  assert.is(next.address, child.address);
  const again = await transfer.connect(next.address);
  assert.is.not(again, peer);
  assert.is.not(again.generation, peer.generation);
  assert.is(await again.call('ping', null), 'pong');
  await rejects(peer.call('ping', null), 'ERR_PEER');
  next.process.kill('SIGKILL');
  await transfer.close();
});

test('a peer that computes for half a second is not dead', async () => {
  const transfer = await TcpTransfer.listen();
  const child = await start();
  const peer = await transfer.connect(child.address);
  for (let i = 0; i < 2; i++) assert.type(await peer.call('compute', 500), 'number');
  assert.is(await peer.call('ping', null), 'pong');
  child.process.kill('SIGKILL');
  await transfer.close();
});

test('our own event loop blocked for longer than a peer may be silent: the peer is not dead', async () => {
  const transfer = await TcpTransfer.listen({ heartbeatMs: 50, deadAfterMs: 200 });
  // The child is patient: it is we who say nothing meanwhile.
  const child = await start(0, 50, 20_000);
  const peer = await transfer.connect(child.address);
  for (let i = 0; i < 3; i++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700);
    await sleep(20);
    assert.is(await peer.call('ping', null), 'pong');
  }
  // The measure is right: with its process stopped, it is dead.
  child.process.kill('SIGSTOP');
  assert.is((await peer.closed).code, 'ERR_PEER');
  child.process.kill('SIGKILL');
  await transfer.close();
});

test('our own event loop blocked after a write was given up: the peer is not blamed for it', async () => {
  const transfer = await TcpTransfer.listen({ heartbeatMs: 50, deadAfterMs: 300 });
  const child = await start(0, 50, 20_000);
  const peer = await transfer.connect(child.address);
  const { id } = await peer.segment('kv');
  const ours = transfer.register(new Uint8Array(SIZE));
  const controller = new AbortController();
  const write = rejects(peer.write(one(ours, 0, id, 0, SIZE), { signal: controller.signal }), 'ERR_ABORTED');
  await sleep(5);
  // Blocked from here, timers come before sockets.
  await new Promise(setImmediate);
  controller.abort();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  await write;
  assert.is(await peer.call('ping', null), 'pong');
  child.process.kill('SIGKILL');
  await transfer.close();
});

test('close lets both processes end by themselves', async () => {
  const transfer = await TcpTransfer.listen();
  transfer.serve('ping', () => 'pong');
  const child = await start();
  const peer = await transfer.connect(child.address);
  assert.is(await peer.call('visit', transfer.address), 'pong');
  await peer.call('quit', null);
  assert.is(await child.exited, 0);
  assert.is((await peer.closed).code, 'ERR_CLOSED');
  await transfer.close();
});

test.run();
