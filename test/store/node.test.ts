// Store nodes: REST, segments, figures, and the processes that share one node's memory; who dies, and what is left then.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { linkSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type EngineStatistics,
  Keys,
  MooncakeError,
  MooncakeStore,
  OBJECTS,
  StoreNode,
  TcpTransfer,
} from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CommandProcess } from '../support/node-process.js';
import { skip } from '../support/skip.js';
import { descriptors } from './descriptors.js';
import { carried, untilShared } from './node-links.js';

/** Leases that no read outlives, and clients that nobody takes for lost, however busy this machine is. */
const PATIENT = { leaseTtlMs: 5000, clientTtlMs: 600_000 };
const SEGMENT = 32 * 2 ** 20;
const UNIT = 2 ** 20;
const GRACE_MS = 8000;
let master: MooncakeMaster;
let address = '';

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never: ${condition}`);
    await wait(10);
  }
}

const refused = (code: string) => (error: unknown) => error instanceof MooncakeError && error.code === code;

async function rejects(promise: Promise<unknown>, code: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  assert.ok(refused(code)(error), `${code}, got ${error}`);
}

function links(store: MooncakeStore) {
  return (store.transfer as unknown as { engine: { statistics(): EngineStatistics } }).engine.statistics().links;
}

async function setUp(): Promise<void> {
  master = await MooncakeMaster.listen({ port: 0, adminPort: 0, ...PATIENT });
  address = `127.0.0.1:${master.ports.rpc}`;
}

const start = (options = {}) => StoreNode.start({ master: address, segments: SEGMENT, httpPort: 0, ...options });

const one = suite('one node');
one.before(setUp);
one.after(() => master.close());

one('status, metrics and health tell what it does, and what became of the master', async () => {
  const node = await start({ serve: {} });
  await fetch(`${node.url}/api/put`, { method: 'PUT', body: '{"key":"k","value":"12345"}' });
  await fetch(`${node.url}/api/get/k`);
  await fetch(`${node.url}/api/get/none`);
  const status = (await (await fetch(`${node.url}/status`)).json()) as ReturnType<StoreNode['status']>;
  assert.is(status.master, address);
  assert.is(status.attach, node.door);
  assert.is(status.segments[0].bytes, SEGMENT);
  assert.equal(
    [status.objects.puts, status.objects.bytesPut, status.objects.hits, status.objects.misses.absent],
    [1, 5, 1, 1],
  );
  const metrics = await (await fetch(`${node.url}/metrics`)).text();
  for (const line of [
    'mooncake_node_master_connected 1',
    `mooncake_node_segment_bytes ${SEGMENT}`,
    'mooncake_node_puts_total 1',
    'mooncake_node_get_bytes_total 5',
    'mooncake_node_misses_total{reason="absent"} 1',
  ]) {
    assert.ok(metrics.includes(`\n${line}\n`), line);
  }
  assert.is((await fetch(`${node.url}/health`)).status, 200);
  await master.close();
  await until(async () => (await fetch(`${node.url}/health`)).status === 503);
  assert.match(await (await fetch(`${node.url}/metrics`)).text(), /^mooncake_node_master_connected 0$/m);
  await node.close();
  await setUp();
});

one('bodies are bounded, half of one stores nothing, and what cannot be is refused at the start', async () => {
  const node = await start({ maxBodyBytes: 1000 });
  const { port } = new URL(node.url);
  const large = await fetch(`${node.url}/api/put`, {
    method: 'PUT',
    body: JSON.stringify({ key: 'x', value: 'v'.repeat(1000) }),
  });
  assert.is(large.status, 413);
  const socket = connect(Number(port), '127.0.0.1');
  socket.write('PUT /api/put HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"key":"half","value":"v"}');
  await once(socket, 'connect');
  await wait(50);
  socket.destroy();
  assert.is(await node.store.isExist('half'), false);
  await rejects(start({ httpPort: Number(port) }), 'ERR_PEER');
  await rejects(start({ segments: 2 ** 52 }), 'ERR_OUT_OF_MEMORY');
  await rejects(node.mount(2 ** 52), 'ERR_OUT_OF_MEMORY');
  assert.is(master.service.segments().length, 1, 'what was refused has left nothing');
  await node.close();
  assert.is(master.service.segments().length, 0);
});

one('a segment of a request that names another one, too, stays', async () => {
  const node = await start();
  const id = await node.mount(2 ** 24);
  const post = async (path: string, body: object) =>
    (await fetch(`${node.url}${path}`, { method: 'POST', body: JSON.stringify(body) })).status;
  const mounted = await fetch(`${node.url}/api/mount`, { method: 'POST', body: '{"size":1}' });
  const { segment_ids: ids } = (await mounted.json()) as { segment_ids: string[] };
  assert.is(await post('/api/unmount', { segment_ids: [...ids, '1-1'] }), 500);
  assert.is(master.service.segments().length, 3);
  assert.is(await post('/api/unmount', { segment_ids: ids }), 200);
  await node.unmount(id);
  assert.is(master.service.segments().length, 1);
  await node.close();
});

one('a master that is away when a grace ends is asked again; until then the memory stays lent', async () => {
  let leaving = 0;
  const onEvent = ({ what }: { what: string }) => {
    if (what === 'segment-leaving') leaving++;
  };
  const first = await MooncakeMaster.listen({ port: 0, adminPort: 0, ...PATIENT, onEvent });
  const { rpc } = first.ports;
  const node = await start({ master: `127.0.0.1:${rpc}` });
  const store = await MooncakeStore.connect({ master: `127.0.0.1:${rpc}`, segments: SEGMENT });
  const lent = () => node.status().segments.map(({ id }) => id);
  const id = await node.mount(UNIT);
  const brought = await store.mountSegment({ memory: new Uint8Array(UNIT) });
  // Both graces end after the master has, also where closing takes long.
  await node.unmount(id, GRACE_MS);
  const unmounting = store.unmountSegment(brought, { graceMs: GRACE_MS });
  await until(() => leaving === 2);
  await first.close();
  const error = await unmounting.then(
    () => assert.unreachable('nobody has agreed'),
    (reason: MooncakeError) => reason,
  );
  assert.ok(refused('ERR_PEER')(error), `${error}`);
  assert.match(error!.message, new RegExp(`${brought}.* stays lent until it is unmounted again`));
  await wait(100);
  assert.ok(lent().includes(id));
  const second = await MooncakeMaster.listen({ port: rpc, adminPort: 0, ...PATIENT });
  await until(() => lent().length === 1);
  // A grace that the master knows nothing of is over.
  await until(() =>
    store.unmountSegment(brought, { graceMs: 1 }).then(
      () => true,
      () => false,
    ),
  );
  await rejects(store.unmountSegment(brought), 'ERR_SEGMENT');
  assert.is(second.service.segments().filter(({ id }) => id === brought).length, 0);
  await Promise.all([store.close(), node.close()]);
  await second.close();
});

const isAccelerated = process.env.MOONCAKE_NATIVE !== 'off';
const mapped =
  'memory of another program: objects lie in its file, whose bytes are lent once, and only while they are there';
if (!isAccelerated) skip(one, mapped, 'the accelerator is switched off', 'unset MOONCAKE_NATIVE');
else {
  one(mapped, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mooncake-mapped-'));
    const [path, other] = [join(folder, 'memory'), join(folder, 'other name')];
    writeFileSync(path, '');
    truncateSync(path, 3 * UNIT);
    linkSync(path, other);
    const node = await start({ segments: 0 });
    try {
      const id = await node.mountFile({ path, offset: UNIT, length: UNIT });
      const value = new Uint8Array(100_000).map((_, at) => at % 251);
      assert.ok(await node.store.put('k', value));
      assert.equal(await node.store.get('k'), value);
      assert.is(readFileSync(path).indexOf(value) >= UNIT, true);
      await rejects(node.mountFile({ path, offset: 0, length: UNIT + 1 }), 'ERR_SEGMENT');
      await rejects(node.mountFile({ path: other, offset: 2 * UNIT - 4096, length: 4096 }), 'ERR_SEGMENT');
      const both = [0, 1].map(() => node.mountFile({ path, offset: 0, length: UNIT }));
      const settled = await Promise.allSettled(both);
      assert.equal(settled.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], 'at the same time');
      await rejects(node.mountFile({ path, offset: 2 * UNIT, length: UNIT + 1 }), 'ERR_INVALID_ARGUMENT');
      await rejects(node.mountFile({ path, offset: 2 * UNIT + 1, length: 1 }), 'ERR_INVALID_ARGUMENT');
      await rejects(node.mountFile({ path: folder, offset: 0, length: UNIT }), 'ERR_PEER');
      await rejects(node.mountFile({ path: '/dev/null', offset: 0, length: UNIT }), 'ERR_INVALID_ARGUMENT');
      await rejects(node.mountFile({ path: join(folder, 'none'), offset: 0, length: UNIT }), 'ERR_PEER');
      const instead = await node.mountFile({ path: other, offset: UNIT, length: UNIT }, [id]);
      assert.is(await node.store.get('k'), undefined, 'the segment that it was in is gone');
      assert.not.ok(node.lends(id));
      await node.unmount(instead);
      await until(async () => {
        const again = await node.mountFile({ path, offset: UNIT, length: UNIT }).catch(() => undefined);
        return again !== undefined;
      });
    } finally {
      await node.close();
      rmSync(folder, { recursive: true });
    }
  });
}

const many = suite('many processes');
many.before(setUp);
many.after(() => master.close());

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

/** A process that has stored `from-child` and is in the middle of `mid-put`; what its links carried. */
async function attachChild(
  node: string,
  ...other: string[]
): Promise<{ child: ChildProcess; byChild: Record<string, number> }> {
  const file = fileURLToPath(new URL('./node-child.js', import.meta.url));
  const child = spawn(process.execPath, [file, node, ...other], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  const [line] = await once(child.stdout!.setEncoding('utf8'), 'data');
  return { child, byChild: JSON.parse(line) as Record<string, number> };
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
  children.delete(child);
}

async function nodeProcess(...flags: string[]) {
  const args = ['store', '--json', '--port=0', '--global_segment_size=32MB', `--master_server_address=${address}`];
  const command = await CommandProcess.start([...args, '--serve', ...flags]);
  return { command, attach: JSON.parse(command.lines[0]).attach as string };
}

const shared = 'processes of one host move bytes by shared memory; one that is killed leaves no put behind';
if (!isAccelerated) skip(many, shared, 'the accelerator is switched off', 'unset MOONCAKE_NATIVE');
else {
  many(shared, async () => {
    const { command, attach } = await nodeProcess();
    const store = await MooncakeStore.attach({ node: attach });
    const { child, byChild } = await attachChild(attach);
    assert.ok(byChild.shm >= 2 ** 20, JSON.stringify(byChild));
    assert.not(byChild.tcp > 0, 'and no other way');
    await untilShared(store, 'parent');
    const before = carried(store);
    assert.equal(await store.get('from-child'), new Uint8Array(2 ** 20).fill(5));
    const after = carried(store);
    assert.ok(after.shm - before.shm >= 2 ** 20);
    assert.is(after.tcp, before.tcp);
    assert.is(master.service.stats().incomplete, 1);
    await kill(child);
    await until(() => master.service.stats().incomplete === 0);
    assert.ok(await store.put('mid-put', new Uint8Array(10).fill(2)), 'its key is free');
    const statuses = await store.batchPut(
      ['a', 'b', 'mid-put'],
      [1, 2, 3].map((n) => new Uint8Array(100_000).fill(n)),
    );
    assert.equal([...statuses], [0, 0, -705]);
    assert.equal(
      (await store.batchGet(['a', 'none', 'b'])).map((value) => value?.[0]),
      [1, undefined, 2],
    );
    await store.close();
    assert.is(await command.end(), 143);
  });
}

many(
  'a process that is killed while it writes to another member: what is on its way may still land there',
  async () => {
    const { command, attach } = await nodeProcess();
    const other = await MooncakeStore.connect({ master: address, segments: SEGMENT });
    try {
      const own = JSON.parse(command.lines[0]).name;
      const { child } = await attachChild(attach, other.transfer.address, own);
      const { incomplete } = master.service.stats();
      await kill(child);
      await until(() => master.service.stats().incomplete < incomplete);
      assert.is(await other.put('mid-far', new Uint8Array(10)), false);
      assert.is(master.service.stats().incomplete, 1);
    } finally {
      await command.end();
      await other.close();
    }
  },
);

many('a node that is killed: calls reject or miss at once; one that comes back on the port is used', async () => {
  const watchful = await MooncakeMaster.listen({ port: 0, admin: false, clientTtlMs: 3000 });
  const there = `--master_server_address=127.0.0.1:${watchful.ports.rpc}`;
  const { command, attach } = await nodeProcess(there);
  const store = await MooncakeStore.attach({ node: attach, timeoutMs: 5000 });
  await store.put('kept', new Uint8Array(1000).fill(1));
  await command.end('SIGKILL');
  assert.is(await store.get('kept'), undefined);
  await rejects(store.put('other', new Uint8Array(10)), 'ERR_PEER');
  await until(() => watchful.service.segments().length === 0);
  const again = await nodeProcess(attach.replace('tcp://', ''), there);
  assert.is(again.attach, attach);
  await until(() => store.put('anew', new Uint8Array(1000).fill(3)).catch(() => false));
  assert.equal(await store.get('anew'), new Uint8Array(1000).fill(3));
  assert.is(await store.get('kept'), undefined);
  await store.close();
  await again.command.end();
  await watchful.close();
});

many("objects of another node are read straight from it; a restarted master's old word is not believed", async () => {
  const near = await start({ serve: {} });
  const far = await MooncakeStore.connect({ master: address, segments: SEGMENT });
  const store = await MooncakeStore.attach({ node: near.door! });
  const [name] = links(far)
    .map(() => far.transfer.address)
    .concat(far.transfer.address);
  await far.put('far', new Uint8Array(50_000).fill(9), { preferredSegments: [name] });
  assert.equal(await store.get('far'), new Uint8Array(50_000).fill(9));
  await store.put('near', new Uint8Array(50_000).fill(8), { preferredSegments: [near.status().name] });
  assert.equal(
    (await store.batchGet(['near', 'far'])).map((value) => value?.[0]),
    [8, 9],
    'each from its own place',
  );
  assert.is(near.status().objects.hits, 0, 'not through the node');
  const view = await store.getReplicas('far');
  assert.is(view?.replicas[0].endpoint, far.transfer.address);
  const { rpc } = master.ports;
  await master.close();
  master = await MooncakeMaster.listen({ port: rpc, adminPort: 0, ...PATIENT });
  await until(() => master.service.segments().length === 2);
  assert.is(await store.get('far'), undefined);
  await until(() => store.put('after', new Uint8Array(100).fill(4)).catch(() => false));
  assert.equal(await store.get('after'), new Uint8Array(100).fill(4));
  await Promise.all([store.close(), far.close(), near.close()]);
});

many('a read that began before the master was restarted is a miss', async () => {
  const leases = { adminPort: 0, ...PATIENT, leaseTtlMs: 60_000 };
  const first = await MooncakeMaster.listen({ port: 0, ...leases });
  const { rpc } = first.ports;
  const node = await StoreNode.start({ master: `127.0.0.1:${rpc}`, segments: SEGMENT, httpPort: 0, serve: {} });
  const store = await MooncakeStore.attach({ node: node.door! });
  await store.put('old', new Uint8Array(1000).fill(1));
  const memory = new Uint8Array(1000);
  const segment = store.transfer.register(memory);
  const reads = async (between: () => Promise<void>) => {
    const batch = await store.openGet(Keys.from(['old']), { stride: memory.length });
    await batch.read(descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: memory.length }]));
    await between();
    return (await batch.finish())[0];
  };
  assert.is(await reads(async () => {}), 0);
  let second: MooncakeMaster | undefined;
  const status = await reads(async () => {
    await first.close();
    const told = new Set<string>();
    second = await MooncakeMaster.listen({ port: rpc, ...leases, onEvent: ({ what }) => told.add(what) });
    await until(() => told.has('segment-fenced'));
    // Comes after the end of the connection, whatever becomes of it.
    await store.isExist('old').catch(() => {});
  });
  assert.ok(status < 0, `${status}`);
  await Promise.all([store.close(), node.close()]);
  await second?.close();
});

many('what is no node, and a node by the wrong door', async () => {
  const transfer = await TcpTransfer.listen();
  const plain = new MooncakeStore({ segments: '16MB', transfer });
  plain.serve();
  await rejects(MooncakeStore.attach({ node: transfer.address }), 'ERR_NOT_SUPPORTED');
  await rejects(MooncakeStore.attach({ node: 'tcp://127.0.0.1:1', timeoutMs: 2000 }), 'ERR_PEER');
  await rejects(MooncakeStore.attach({ node: 'nowhere' }), 'ERR_INVALID_ARGUMENT');
  const node = await start({ serve: {} });
  await rejects(MooncakeStore.attach({ transfer, address: node.door! }), 'ERR_NOT_SUPPORTED');
  await plain.close();
  await transfer.close();
  await node.close();
});

one.run();
many.run();
