/** The control socket: what it answers, what it refuses, and that whoever breaks the rules breaks nobody else. */
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import * as fc from 'fast-check';
import { LocalTransfer, MooncakeError, MooncakeStore, NodeService, sharedMemory } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ENGINE, RawClient, STORE } from './raw-client.js';

const folder = mkdtempSync(join(tmpdir(), 'mooncake-service-'));
const socket = join(folder, 'service.sock');
const transfer = new LocalTransfer();
const store = new MooncakeStore({ segments: 1 << 20 });
const failures: unknown[] = [];
const service = await NodeService.start({ socket, store, transfer, onError: (error) => failures.push(error) });

const uses = (name: string, run: (client: RawClient) => Promise<void>) =>
  test(name, async () => {
    const client = await RawClient.open(socket);
    try {
      await run(client);
    } finally {
      client.close();
    }
  });

test('both sockets are their owner’s alone, and go with the service', async () => {
  const own = join(folder, 'own', 'one.sock');
  const one = await NodeService.start({ socket: own, transfer });
  for (const path of [own, `${own}.fd`]) assert.is(statSync(path).mode & 0o777, 0o600, path);
  assert.is(statSync(join(folder, 'own')).mode & 0o777, 0o700);
  await one.close();
  for (const path of [own, `${own}.fd`]) assert.is(statSync(path, { throwIfNoEntry: false }), undefined, path);
});

test('a service that stops leaves its successor’s sockets alone', async () => {
  const own = join(folder, 'handed-on.sock');
  const one = await NodeService.start({ socket: own, transfer });
  const client = await RawClient.open(own);
  await client.ok('scheduler.attach', { engine: ENGINE, connector: { kind: 'mooncake' } });
  const closing = one.close();
  const next = await NodeService.start({ socket: own, transfer });
  await closing;
  for (const path of [own, `${own}.fd`]) assert.ok(statSync(path, { throwIfNoEntry: false })?.isSocket(), path);
  const other = await RawClient.open(own);
  assert.is((await other.ok('status', {})).instance, next.instance);
  other.close();
  client.close();
  await next.close();
});

test('a socket that another service listens on is refused, and so is a file', async () => {
  const refused = async (path: string) => {
    const error: unknown = await NodeService.start({ socket: path, transfer }).catch((cause: unknown) => cause);
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT');
  };
  await refused(socket);
  const file = join(folder, 'file');
  writeFileSync(file, 'mine');
  await refused(file);
  await refused(join(folder, 'x'.repeat(120)));
  const open = join(folder, 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  await refused(join(open, 'service.sock'));
  const client = await RawClient.open(socket);
  assert.is((await client.ok('status', {})).instance, service.instance);
  client.close();
});

test('a client of another version is told both, and sent away', async () => {
  const client = await RawClient.connect(socket);
  const { code, message } = await client.refused('hello', { protocol: 2, client: 'test/2', pid: 1 });
  assert.is(code, 'ERR_VERSION');
  assert.match(message, /protocol is 2, this side speaks 1/);
  await client.ended;
});

test('whoever does not say hello is sent away', async () => {
  const client = await RawClient.connect(socket);
  client.write([1, 'status', {}]);
  await client.ended;
  assert.is((await client.answer(0)).error!.code, 'ERR_PROTOCOL');
});

uses('unknown calls are refused, unknown keys are not', async (client) => {
  assert.is((await client.refused('worker.dance', {})).code, 'ERR_NOT_SUPPORTED');
  assert.is((await client.ok('status', { more: 1 })).instance, service.instance);
  // The greeting can be said again, as long as it is the same.
  assert.is((await client.ok('hello', { protocol: 1, client: 'test/1', pid: 1, more: [] })).instance, service.instance);
});

uses('halves of one engine name the same engine and connector', async (client) => {
  await client.ok('worker.attach', { engine: ENGINE, connector: STORE, rank: 0 });
  const differing: [object, object, RegExp][] = [
    [{ ...ENGINE, model: 'other' }, STORE, /engine\.model.*"other".*"model"/],
    [{ ...ENGINE, hash: { ...ENGINE.hash, seed: '1' } }, STORE, /engine\.hash\.seed.*"1".*"0"/],
    [{ ...ENGINE, hash: { ...ENGINE.hash, algorithm: 'sha256' } }, STORE, /engine\.hash\.algorithm/],
    [{ ...ENGINE, tensorParallelSize: 2 }, STORE, /tensorParallelSize.*2.*1/],
    [ENGINE, { ...STORE, integrity: 'stock' }, /connector\.integrity.*"stock".*"strict"/],
    [ENGINE, { ...STORE, loadAsync: undefined }, /connector\.loadAsync/],
  ];
  for (const [engine, connector, text] of differing) {
    const { code, message } = await client.refused('scheduler.attach', { engine, connector });
    assert.is(code, 'ERR_ENGINE');
    assert.match(message, text);
  }
  await client.ok('scheduler.attach', { engine: ENGINE, connector: STORE });
});

uses('an engine that lives is not replaced, one that has gone is', async (client) => {
  const attach = { engine: { ...ENGINE, engineId: 'twice' }, connector: STORE };
  const first = await client.ok('scheduler.attach', attach);
  const other = await RawClient.open(socket);
  const { code, message } = await other.refused('scheduler.attach', attach);
  assert.is(code, 'ERR_ENGINE');
  assert.match(message, /"twice" has a scheduler half .* that lives/);
  client.close();
  const second = await other.ok('scheduler.attach', attach);
  assert.ok(second.generation > first.generation);
  other.close();
});

uses('a reset is for engines that share prefixes', async (client) => {
  const attach = (engineId: string, connector: object) =>
    client.ok('scheduler.attach', { engine: { ...ENGINE, engineId }, connector });
  const { session } = await attach('shares', STORE);
  assert.equal(await client.ok('scheduler.reset', { session }), { removed: 0 });
  const { session: other } = await attach('hands over', { kind: 'mooncake' });
  assert.is((await client.refused('scheduler.reset', { session: other })).code, 'ERR_NOT_SUPPORTED');
});

uses('an engine ends as a whole', async (client) => {
  const attach = { engine: { ...ENGINE, engineId: 'whole' }, connector: STORE };
  const other = await RawClient.open(socket);
  const scheduler = await client.ok('scheduler.attach', attach);
  const worker = await other.ok('worker.attach', { ...attach, rank: 0 });
  assert.is(worker.generation, scheduler.generation);
  other.close();
  await other.ended;
  const gone = async () => (await client.call('scheduler.stats', { session: scheduler.session })).error?.code;
  let code = await gone();
  for (let i = 0; i < 200 && code === undefined; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    code = await gone();
  }
  assert.is(code, 'ERR_STALE');
  const again = await client.ok('scheduler.attach', attach);
  assert.ok(again.generation > scheduler.generation);
});

uses('sessions belong to their connection', async (client) => {
  const attach = { engine: { ...ENGINE, engineId: 'mine' }, connector: STORE };
  const { session } = await client.ok('scheduler.attach', attach);
  const other = await RawClient.open(socket);
  assert.is((await other.refused('scheduler.stats', { session })).code, 'ERR_NOT_FOUND');
  assert.is((await client.refused('worker.saved', { session })).code, 'ERR_INVALID_ARGUMENT');
  other.close();
});

uses('errors that nobody waits for are told with the next step', async (client) => {
  const attach = { engine: { ...ENGINE, engineId: 'silent' }, connector: STORE };
  const { session } = await client.ok('scheduler.attach', attach);
  client.send('scheduler.allocated', { session, id: 'nobody', blocks: [[1]], external: 4 });
  client.send('scheduler.request', { session, id: 'odd', tokens: new Uint8Array(3) });
  const { errors } = await client.ok('scheduler.step', { session });
  assert.equal(
    errors.map(({ code }: { code: string }) => code),
    ['ERR_NOT_FOUND', 'ERR_INVALID_ARGUMENT'],
  );
  assert.equal((await client.ok('scheduler.step', { session })).errors, []);
});

uses('memory that cannot be had is refused by name', async (client) => {
  const engine = { ...ENGINE, engineId: 'memory' };
  const { session } = await client.ok('worker.attach', { engine, connector: STORE, rank: 0 });
  const register = (memory: object) =>
    client.refused('worker.register', { session, memories: [memory], layout: { groups: [] } });
  const ticket = new Uint8Array(16);
  const cases: [object, string, RegExp][] = [
    [{ kind: 'memfd', ticket, offset: 0, length: 4096 }, 'ERR_SEGMENT', /memories\[0\]: no descriptor waits/],
    [{ kind: 'memfd', ticket: new Uint8Array(3), length: 1 }, 'ERR_INVALID_ARGUMENT', /ticket.*16 bytes/],
    [{ kind: 'process', pid: process.pid, address: 4096, length: 4096 }, 'ERR_NOT_SUPPORTED', /process/],
    [{ kind: 'cuda-fabric', length: 1 }, 'ERR_NOT_SUPPORTED', /cuda-fabric/],
    [{ kind: 'cuda-vmm-fd', length: 1 }, 'ERR_INVALID_ARGUMENT', /memories\[0\]\.device/],
    [{ kind: 'cuda-vmm-fd', device: 'cuda:0', length: 1 }, 'ERR_INVALID_ARGUMENT', /memories\[0\]\.parts/],
    [{ kind: 'cuda-vmm-fd', parts: [{ ticket, size: 4096 }] }, 'ERR_SEGMENT', /parts\[0\]: no descriptor waits/],
    [{ kind: 'cuda-ipc', length: 1 }, 'ERR_INVALID_ARGUMENT', /memories\[0\]\.device/],
    [{ kind: 'cuda-ipc', device: 'cuda:0', length: 1, handle: ticket }, 'ERR_INVALID_ARGUMENT', /handle.*64 bytes/],
    [{ kind: 'punched cards', length: 1 }, 'ERR_INVALID_ARGUMENT', /memories\[0\]\.kind/],
  ];
  for (const [memory, code, text] of cases) {
    const error = await register(memory);
    assert.is(error.code, code);
    assert.match(error.message, text);
  }
});

test('memory whose layout is refused stays mapped as long as it is registered', async () => {
  const lengths: number[] = [];
  const { transfer: registry } = store;
  const { unregister } = registry;
  registry.unregister = (segment) => {
    lengths.push(registry.memory(segment).length);
    return unregister.call(registry, segment);
  };
  try {
    const rank = new Worker(new URL('./refused-rank.js', import.meta.url), { workerData: socket });
    assert.match((await once(rank, 'message'))[0], /layout\.groups/);
    await rank.terminate();
    for (let i = 0; i < 1000 && lengths.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  } finally {
    registry.unregister = unregister;
  }
  assert.equal(lengths, [1 << 16]);
});

uses('a rank that is none, a connector that is none', async (client) => {
  const attach = { engine: { ...ENGINE, engineId: 'wrong' }, connector: STORE };
  assert.match((await client.refused('worker.attach', { ...attach, rank: 1 })).message, /rank.*tensorParallelSize 1/);
  const unknown = await client.refused('scheduler.attach', { ...attach, connector: { kind: 'pigeon' } });
  assert.match(unknown.message, /connector\.kind/);
  const random = { ...ENGINE, hash: { ...ENGINE.hash, noneHash: 'ff'.repeat(32) } };
  assert.is((await client.refused('scheduler.attach', { ...attach, engine: random })).code, 'ERR_ENGINE');
  // Nothing of it is left behind.
  assert.ok(!service.status().engines.some(({ engineId }) => engineId === 'wrong'));
});

test('a frame that is too long ends its connection, and no other', async () => {
  const [bad, good] = [await RawClient.open(socket), await RawClient.open(socket)];
  const header = Buffer.alloc(4);
  header.writeUInt32LE(64 * 2 ** 20 + 1);
  bad.socket.write(header);
  await bad.ended;
  assert.match((await bad.answer(0)).error!.message, /a frame of 67108865 bytes/);
  assert.is((await good.ok('status', {})).instance, service.instance);
  good.close();
});

test('garbage ends its connection with a reason', async () => {
  const frame = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.string().map((text) => Buffer.from(text)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { minLength: 1, maxLength: 4 }), fc.nat(40), async (frames, cut) => {
      const client = await RawClient.open(socket);
      const bytes = Buffer.concat(
        frames.flatMap((one) => {
          const header = Buffer.alloc(4);
          header.writeUInt32LE(one.length);
          return [header, one];
        }),
      );
      // In pieces, however they fall.
      client.socket.write(bytes.subarray(0, cut));
      client.socket.end(bytes.subarray(cut));
      await client.ended;
      assert.ok(client.answers.every(({ error }) => error === null || /^ERR_[A-Z_]+$/.test(error.code)));
      client.close();
    }),
    { numRuns: 60 },
  );
  const client = await RawClient.open(socket);
  assert.is((await client.ok('status', {})).instance, service.instance);
  client.close();
});

uses('calls may be cut into any pieces, and come many at once', async (client) => {
  const calls = Array.from({ length: 500 }, (_, i) => [1000 + i, 'status', { padding: 'x'.repeat(i) }]);
  const { Packr } = await import('msgpackr');
  const packr = new Packr({ useRecords: false });
  const bytes = Buffer.concat(
    calls.flatMap((call) => {
      const packed = Buffer.from(packr.pack(call));
      const header = Buffer.alloc(4);
      header.writeUInt32LE(packed.length);
      return [header, packed];
    }),
  );
  for (let at = 0; at < bytes.length; at += 997) client.socket.write(bytes.subarray(at, at + 997));
  for (const [id] of calls) assert.is((await client.answer(id as number)).error, null);
});

test('a client that does not read is not answered without end', async () => {
  const slow = await RawClient.open(socket);
  slow.socket.pause();
  const before = service.status().counters.calls;
  const wanted = 200_000;
  for (let i = 1; i <= wanted; i++) if (!slow.socket.destroyed) slow.write([i, 'status', {}]);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const good = await RawClient.open(socket);
  assert.is((await good.ok('status', {})).instance, service.instance);
  assert.ok(service.status().counters.calls - before < wanted, 'every call of it was answered');
  good.close();
  slow.close();
});

test('a service that stops ends its connections, and touches no memory then', async () => {
  const own = join(folder, 'stop.sock');
  const one = await NodeService.start({ socket: own, store, transfer });
  const client = await RawClient.open(own);
  await client.ok('worker.attach', { engine: { ...ENGINE, engineId: 'stopped' }, connector: STORE, rank: 0 });
  const closed = one.close();
  await client.ended;
  client.close();
  await closed;
});

test('memory for a service is the accelerator’s', () => {
  assert.is(sharedMemory(10_000).length, 10_000);
  assert.throws(
    () => sharedMemory(0),
    ({ code }: MooncakeError) => code === 'ERR_INVALID_ARGUMENT',
  );
});

test.after(async () => {
  await service.close();
  await store.close();
  await transfer.close();
  rmSync(folder, { recursive: true, force: true });
});

test.run();
