// The REST API of a store node, request by request beside the stock store service: both on our master, in name spaces of
// their own. What differs on purpose is listed here.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CommandProcess } from '../support/node-process.js';
import { freePort, Master } from './masters.js';

const START_MS = 60_000;
const MIB = 2 ** 20;
const SEGMENT = 64 * MIB;
const folder = mkdtempSync(join(tmpdir(), 'mooncake-node-'));
let master: Master;
let stock: ChildProcess;
let stockLog = '';
let node: CommandProcess;
let ports: { stock: number; ours: number };

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Reply {
  status: number;
  body: string;
  type: string | undefined;
  allow: string | undefined;
}

/** Node's own client: fetch would change paths. */
function ask(port: number, method: string, path: string, body?: string | Buffer): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, method, path, agent: false }, async (response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk);
      const { 'content-type': type, allow } = response.headers;
      resolve({ status: response.statusCode!, body: Buffer.concat(chunks).toString('latin1'), type, allow });
    });
    call.on('error', reject);
    if (body !== undefined) call.setHeader('content-length', Buffer.byteLength(body));
    call.end(body);
  });
}

test.before(async () => {
  master = await Master.start('ours', ['--default_kv_lease_ttl=500']);
  const config = join(folder, 'stock.json');
  const common = {
    local_hostname: '127.0.0.1',
    metadata_server: 'P2PHANDSHAKE',
    master_server_address: `127.0.0.1:${master.port}`,
    global_segment_size: SEGMENT,
    local_buffer_size: SEGMENT,
    protocol: 'tcp',
  };
  writeFileSync(config, JSON.stringify({ ...common, tenant_id: 'stock' }));
  const stockPort = await freePort();
  const service = ['-m', 'mooncake.mooncake_store_service', '--config', config, '--port', `${stockPort}`];
  stock = spawn(process.env.MOONCAKE_PYTHON!, service, { stdio: ['ignore', 'ignore', 'pipe'] });
  process.on('exit', () => stock.kill('SIGKILL'));
  stock.stderr!.setEncoding('utf8').on('data', (text) => {
    stockLog = (stockLog + text).slice(-4000);
  });
  // The same file serves both.
  node = await CommandProcess.start(['store', '--config', config, '--tenant_id=ours', '--port=0', '--json']);
  ports = { stock: stockPort, ours: Number(new URL(JSON.parse(node.lines[0]).url).port) };
  const deadline = Date.now() + START_MS;
  while ((await ask(stockPort, 'GET', '/').catch(() => undefined)) === undefined) {
    if (Date.now() > deadline || stock.exitCode !== null) throw new Error(`no stock service\n${stockLog}`);
    await wait(100);
  }
});

test.after(async () => {
  await node.end();
  stock.kill('SIGKILL');
  if (stock.exitCode === null && stock.signalCode === null) await once(stock, 'exit');
  await master.end();
  rmSync(folder, { recursive: true, force: true });
});

async function both(method: string, path: string, body?: unknown): Promise<{ stock: Reply; ours: Reply }> {
  const raw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const [theirs, ours] = [await ask(ports.stock, method, path, raw), await ask(ports.ours, method, path, raw)];
  return { stock: theirs, ours };
}

/** The answers are the same, byte for byte. */
async function same(method: string, path: string, body?: unknown): Promise<Reply> {
  const { stock: theirs, ours } = await both(method, path, body);
  assert.equal(ours, theirs, `${method} ${path.slice(0, 80)} ${JSON.stringify(body)?.slice(0, 80)}`);
  return ours;
}

test('objects: stored, there already, read, looked up, removed', async () => {
  assert.is((await same('PUT', '/api/put', { key: 'a', value: 'hello' })).body, '{"status": "success"}');
  assert.is((await same('GET', '/api/get/a')).body, 'hello');
  await same('PUT', '/api/put', { key: 'a', value: 'other' });
  assert.is((await same('GET', '/api/get/a?x=1')).body, 'hello');
  await same('HEAD', '/api/get/a');
  assert.is((await same('GET', '/api/exist/a')).body, '{"exists": true}');
  await same('GET', '/api/exist/none');
  assert.is((await same('GET', '/api/get/none')).status, 404);
  await same('DELETE', '/api/remove/none');
  assert.is((await same('DELETE', '/api/remove/a')).status, 500, 'a lease protects it');
  await wait(700);
  assert.is((await same('DELETE', '/api/remove/a')).status, 200);
  await same('GET', '/api/get/a');
});

test('keys and values of all characters, long keys, large values', async () => {
  for (const [key, value] of [
    ['u', 'schön ✓ \u{1f600}'],
    ['schlüssel/✓ x', 'v'],
    ['a+b%zz?&#;=@:', 'v'],
    ['nul\0nul', 'a\0b\r\n\\"'],
    ['k'.repeat(5000), 'v'],
    ['large', '✓x'.repeat(8 << 20)],
  ] as const) {
    await same('PUT', '/api/put', { key, value });
    assert.is((await same('GET', `/api/get/${encodeURIComponent(key)}`)).body, Buffer.from(value).toString('latin1'));
    await same('GET', `/api/exist/${encodeURIComponent(key)}`);
  }
  await same('PUT', '/api/put', '{"key":"twice","value":"1","value":"2"}');
  assert.is((await same('GET', '/api/get/twice')).body, '2');
  for (const path of ['/api/get/%ff', '/api/exist/%zz', '/api/get/a+b', '/api/get/schl%C3%BCssel/%E2%9C%93%20x']) {
    await same('GET', path);
  }
  await same('PUT', '/api/put', { key: 'too large for the segment', value: 'x'.repeat(70 << 20) });
  await wait(700);
  assert.match((await same('DELETE', '/api/remove_all')).body, /removed \d+ keys/);
  await same('DELETE', '/api/remove_all');
});

test('what is missing, and what is not there', async () => {
  for (const body of [{ key: '', value: 'x' }, { key: 'x' }, { value: 'x' }, { key: 'x', value: null }]) {
    assert.is((await same('PUT', '/api/put', body)).status, 400);
  }
  assert.is((await same('PUT', '/api/put', { key: 'empty', value: '' })).status, 500);
  for (const [method, path] of [
    ['GET', '/api/put'],
    ['POST', '/api/put'],
    ['DELETE', '/api/get/a'],
    ['OPTIONS', '/api/get/a'],
    ['GET', '/api/mount'],
    ['GET', '/api/get/'],
    ['GET', '/api/get'],
    ['GET', '/api/get/a/'],
    ['PUT', '/api/put/'],
    ['DELETE', '/api/remove/'],
    ['GET', '/'],
    ['GET', '/api/nothing'],
  ]) {
    assert.ok((await same(method, path)).status >= 404);
  }
});

test('segments: refusals, and what they leave', async () => {
  for (const body of [{ size: '16MB' }, { size: 0 }, { size: -1 }, { size: 1.5 }, { size: true }, {}]) {
    assert.is((await same('POST', '/api/mount', body)).status, 400);
  }
  for (const body of [
    { name: 'a/b', size: 1 },
    { name: '..', size: 1 },
    { size: 1 },
    { name: 'a' },
    { name: 5, size: 1 },
  ]) {
    assert.is((await same('POST', '/api/mount_shm', body)).status, 400);
  }
  await same('POST', '/api/mount_shm', { name: 'mooncake-no-such-memory', size: 2 ** 24 });
  for (const body of [
    {},
    { segment_ids: [] },
    { segment_ids: null },
    { segment_ids: ['x'] },
    { segment_ids: ['1-2'] },
  ]) {
    await same('POST', '/api/unmount', body);
    await same('POST', '/api/unmount_shm', body);
  }
  for (const grace of [0, 1, 3600, -1, 3601, '5', true, 1.5, null]) {
    await same('POST', '/api/unmount_local_disk', { grace_period_seconds: grace });
  }
  for (const body of [{}, '', 'x', '[]', '5']) await same('POST', '/api/unmount_local_disk', body);
});

test('the switch between prefill and decode: what is wrong, and memory that is not there', async () => {
  const none = '/dev/shm/mooncake-no-such-memory';
  for (const body of [
    {},
    { mode: '' },
    { mode: 'both' },
    { mode: 'decode' },
    { mode: 'decode', size: 1 },
    { mode: 'decode', path: '', size: 1 },
    { mode: 'Decode', path: none, size: null },
    { mode: 'prefill' },
    { mode: 'PREFILL', path: none },
    { mode: 'decode', path: none, size: 2 ** 24 },
    { mode: 'prefill' },
  ]) {
    await same('POST', '/api/reconfigure', body);
  }
});

/** Files of shared memory, one for each of the two: who shares bytes has each other's objects. */
class SharedMemory {
  readonly names: Record<'stock' | 'ours', string>;

  constructor(bytes: number) {
    const name = `mooncake-node-${process.pid}-${Math.random().toString(36).slice(2)}`;
    this.names = { stock: `${name}-stock`, ours: `${name}-ours` };
    for (const one of Object.values(this.names)) {
      writeFileSync(`/dev/shm/${one}`, '');
      truncateSync(`/dev/shm/${one}`, bytes);
    }
  }

  path(whose: 'stock' | 'ours'): string {
    return `/dev/shm/${this.names[whose]}`;
  }

  remove(): void {
    for (const whose of ['stock', 'ours'] as const) rmSync(this.path(whose), { force: true });
  }
}

/** A request that differs in the memory alone; the answers are the same but for ids, which it returns. */
async function ofEach(path: string, body: (whose: 'stock' | 'ours') => object) {
  const replies = {
    stock: await ask(ports.stock, 'POST', path, JSON.stringify(body('stock'))),
    ours: await ask(ports.ours, 'POST', path, JSON.stringify(body('ours'))),
  };
  const plain = (reply: Reply) => ({ ...reply, body: reply.body.replace(/\d+-\d+/g, 'ID') });
  assert.equal(plain(replies.ours), plain(replies.stock), `${path} ${JSON.stringify(body('ours'))}`);
  const ids = (reply: Reply): string[] => JSON.parse(reply.body).segment_ids ?? [];
  return { status: replies.ours.status, stock: ids(replies.stock), ours: ids(replies.ours) };
}

test('memory of other programs: mounted by its name, what is not there, and taken back', async () => {
  const memory = new SharedMemory(48 * MIB);
  try {
    const mount = (more: object) =>
      ofEach('/api/mount_shm', (whose) => ({ name: memory.names[whose], size: 16 * MIB, ...more }));
    const first = await mount({});
    const third = await mount({ offset: 32 * MIB });
    assert.equal([first.status, third.status, (await mount({ size: 0 })).status], [200, 200, 200]);
    for (const more of [{ size: 49 * MIB }, { offset: 40 * MIB }, { offset: 16 * MIB + 100 }, { offset: 2 ** 50 }]) {
      assert.is((await mount(more)).status, 500);
    }
    const unmount = (of: typeof first, more = {}) =>
      ofEach('/api/unmount_shm', (whose) => ({ segment_ids: of[whose], ...more }));
    assert.is((await unmount(first)).status, 200);
    assert.is((await unmount(first)).status, 500, 'it is gone');
    // One id may stand without a list.
    const one = { ...third, stock: third.stock[0], ours: third.ours[0] } as unknown as typeof first;
    assert.is((await unmount(one)).status, 200);
    const again = await mount({});
    assert.is((await unmount(again, { grace_period_seconds: 600 })).status, 200);
  } finally {
    memory.remove();
  }
});

test('the switch to decode lends memory by its path, in place of what was lent before', async () => {
  const [before, after] = [new SharedMemory(32 * MIB), new SharedMemory(32 * MIB)];
  try {
    const decode = (memory: SharedMemory, more: object = {}) =>
      ofEach('/api/reconfigure', (whose) => ({ mode: 'decode', path: memory.path(whose), size: 16 * MIB, ...more }));
    const first = await decode(before, { offset: 16 * MIB });
    assert.equal([first.status, first.ours.length], [200, 1]);
    const kept = await decode(after, { size: 64 * MIB });
    assert.is(kept.status, 500, 'and the first stays');
    const second = await decode(after);
    assert.is(second.status, 200);
    assert.is.not(second.ours[0], first.ours[0]);
    const same = await decode(after);
    assert.is(same.ours.length, 1);
    const gone = await ofEach('/api/unmount_shm', (whose) => ({ segment_ids: first[whose] }));
    assert.is(gone.status, 500);
    assert.is((await ofEach('/api/reconfigure', () => ({ mode: 'prefill' }))).status, 200);
    assert.is((await ofEach('/api/unmount_shm', (whose) => ({ segment_ids: same[whose] }))).status, 500);
  } finally {
    before.remove();
    after.remove();
  }
});

test('segments: mounted, and taken back at once or with a grace', async () => {
  for (const [size, grace] of [
    [2 ** 24, 0],
    [5, 600],
    [17 * 2 ** 20, 0],
  ]) {
    const { stock: theirs, ours } = await both('POST', '/api/mount', { size });
    const [a, b] = [JSON.parse(theirs.body), JSON.parse(ours.body)];
    assert.is(b.allocated_size, a.allocated_size);
    assert.is(ours.body.replace(b.segment_ids[0], 'ID'), theirs.body.replace(a.segment_ids[0], 'ID'));
    const unmount = (port: number, { segment_ids }: { segment_ids: string[] }, grace_period_seconds: number) =>
      ask(port, 'POST', '/api/unmount', JSON.stringify({ segment_ids, grace_period_seconds }));
    assert.equal(await unmount(ports.ours, b, grace), await unmount(ports.stock, a, grace));
    // Under a grace the stock service says -600 instead of -1.
    const again = { ours: await unmount(ports.ours, b, 0), stock: await unmount(ports.stock, a, 0) };
    assert.is(again.ours.status, again.stock.status);
    assert.is(again.ours.body, again.stock.body.replace('-600', '-1'));
  }
});

test('differs on purpose: what a caller did wrong is 400 (or 413) and changes nothing', async () => {
  for (const [method, path, body] of [
    ['PUT', '/api/put', 'not json'],
    ['PUT', '/api/put', ''],
    ['PUT', '/api/put', '[]'],
    ['PUT', '/api/put', Buffer.from([0xff, 0xfe])],
    ['PUT', '/api/put', '{"key":"bad","value":NaN}'],
    ['PUT', '/api/put', { key: 5, value: 'x' }],
    ['PUT', '/api/put', { key: 'bad', value: 5 }],
    ['PUT', '/api/put', { key: 'bad', value: ['x'] }],
    ['PUT', '/api/put', '{"key":"bad","value":"\\ud800"}'],
    ['POST', '/api/mount', '[]'],
    ['POST', '/api/mount_shm', { name: 'x', size: -1 }],
    ['POST', '/api/mount_shm', { name: 'x', size: '16MB' }],
    ['POST', '/api/mount_shm', { name: 'x', size: 1, offset: -1 }],
    ['POST', '/api/reconfigure', { mode: 5 }],
    ['POST', '/api/reconfigure', { mode: 'decode', path: 5, size: 1 }],
    ['POST', '/api/reconfigure', '[]'],
    ['POST', '/api/unmount', { segment_ids: ['x'], grace_period_seconds: -1 }],
    ['POST', '/api/unmount_shm', { segment_ids: ['x'], grace_period_seconds: 'x' }],
  ] as const) {
    const { stock: theirs, ours } = await both(method, path, body);
    assert.is(theirs.status, 500);
    assert.is(ours.status, 400);
    assert.ok(JSON.parse(ours.body).error);
  }
  assert.is((await ask(ports.ours, 'GET', '/api/exist/bad')).body, '{"exists": false}');
  const { stock: theirs, ours } = await both('PUT', '/api/put', { key: 'bad', value: 'x'.repeat(101 << 20) });
  assert.is(ours.body, theirs.body);
  assert.equal([ours.status, theirs.status], [413, 500]);
});

test.run();
