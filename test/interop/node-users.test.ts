// Many users on one host. The stock way: dummy clients of a `mooncake_client` process, whose answers on our master are those on
// the stock one. Ours: processes attached to a store node, whose cluster may be a stock master's, with stock clients in it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MooncakeStore, StoreNode } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort, type Kind, Master } from './masters.js';
import { StockClient, value } from './stock-client.js';

const START_MS = 60_000;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const isOpen = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });

/** A process with what it printed, on both streams; it has ended, or answers on the port. */
async function start(
  file: string,
  args: readonly string[],
  port?: number,
): Promise<{ child: ChildProcess; log: string[] }> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const log: string[] = [];
  running.add(child);
  const exited = once(child, 'close').then(() => running.delete(child));
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => log.push(text));
  const deadline = Date.now() + START_MS;
  while (port !== undefined && !(await isOpen(port))) {
    if (Date.now() > deadline || !running.has(child)) throw new Error(`${file} does not start\n${log.join('')}`);
    await wait(50);
  }
  if (port === undefined) await exited;
  return { child, log };
}

/** What two dummy clients say, step by step. */
async function dummies(kind: Kind): Promise<string[]> {
  const master = await Master.start(kind);
  const port = await freePort();
  const flags = [
    `--master_server_address=127.0.0.1:${master.port}`,
    '--host=127.0.0.1',
    '--metadata_server=P2PHANDSHAKE',
    `--port=${port}`,
    '--global_segment_size=128MB',
    '--local_buffer_size=64MB',
  ];
  const client = await start(join(dirname(process.env.MOONCAKE_PYTHON!), 'mooncake_client'), flags, port);
  const script = fileURLToPath(new URL('./node_users.py', import.meta.url));
  const { log } = await start(process.env.MOONCAKE_PYTHON!, [script, `127.0.0.1:${port}`]);
  client.child.kill('SIGKILL');
  await master.end();
  const steps = log.join('').split('\n');
  assert.ok(steps.includes('done'), log.join('').slice(-2000));
  return steps.filter((line) => line.startsWith('["'));
}

test('dummy clients of the stock mooncake_client say on our master what they say on the stock one', async () => {
  const stock = await dummies('stock');
  assert.ok(stock.length >= 15, `${stock.length} steps`);
  assert.equal(await dummies('ours'), stock);
});

for (const kind of ['stock', 'ours'] as const) {
  test(`a process attached to a node and a stock client, on the ${kind} master`, async () => {
    const master = await Master.start(kind);
    const address = `127.0.0.1:${master.port}`;
    const node = await StoreNode.start({ master: address, segments: '64MB', httpPort: 0, serve: {} });
    const store = await MooncakeStore.attach({ node: node.door! });
    assert.ok(await store.put('ours', value(1, 3_000_000)));
    assert.is(await store.put('ours', value(2, 10)), false);
    const peer = await StockClient.start(address);
    assert.is(await peer.call('get', 'ours', 1, 3_000_000), 'right');
    assert.is(await peer.call('put', 'theirs', 3, 2_000_000), 0);
    assert.equal(await store.get('theirs'), value(3, 2_000_000));
    const keys = Array.from({ length: 300 }, (_, i) => `many-${i}`);
    const statuses = await store.batchPut(
      keys,
      keys.map((_, i) => value(i, 1000 + i)),
    );
    assert.ok(statuses.every((status) => status === 0));
    assert.equal(
      await store.batchGet(keys),
      keys.map((_, i) => value(i, 1000 + i)),
    );
    await store.upsert('ours', value(9, 100));
    assert.equal(await store.get('ours'), value(9, 100));
    assert.equal([...(await store.batchIsExist(['ours', 'none', 'theirs']))], [1, 0, 1]);
    await store.close();
    await peer.end();
    await node.close();
    await master.end();
  });
}

test.run();
