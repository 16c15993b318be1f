import { connect } from 'node:net';
import { failure, METHODS, pack, type Refusal, RpcClient, RpcServer, success, unpack } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const code = (wanted: string) => (error: { code: string }) => error.code === wanted;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function serving(
  options: ConstructorParameters<typeof RpcServer>[0],
  body: (server: RpcServer, port: number) => Promise<void>,
) {
  const server = new RpcServer(options);
  const port = await server.listen();
  try {
    await body(server, port);
  } finally {
    await server.close();
  }
}

/** Sends bytes as they are; what came until the server closed, or `enough` bytes were there. */
function raw(port: number, chunks: Uint8Array[], enough = Number.POSITIVE_INFINITY): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    let got = Buffer.alloc(0);
    const timer = setTimeout(() => reject(new Error(`only ${got.length} bytes in 10 s`)), 10_000);
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(got);
    };
    socket.on('data', (chunk) => {
      got = Buffer.concat([got, chunk]);
      if (got.length >= enough) end();
    });
    socket.on('error', end);
    socket.on('close', end);
    (async () => {
      for (const chunk of chunks) {
        socket.write(chunk);
        await wait(2);
      }
    })();
  });
}

test('calls with and without arguments, at once and later, many at a time', () =>
  serving({}, async (server, port) => {
    server.handle(METHODS.ServiceReady, () => success('2.0.0'));
    server.handle(METHODS.ExistKey, async ({ key }) => {
      const text = Buffer.from(key).toString();
      await wait(text === 'slow' ? 50 : 1);
      return success(text === 'slow');
    });
    const client = await RpcClient.connect('127.0.0.1', port);
    assert.equal(await client.call(METHODS.ServiceReady, {}), { ok: true, value: '2.0.0' });
    const keys = ['slow', ...Array.from({ length: 300 }, (_, i) => `key ${i}`)];
    const answers = await Promise.all(
      keys.map((key) => client.call(METHODS.ExistKey, { key: Buffer.from(key), tenant: 'default' })),
    );
    assert.equal(
      answers.map((answer) => answer.ok && answer.value),
      keys.map((key) => key === 'slow'),
    );
    client.close();
    assert.is((await client.closed).code, 'ERR_CLOSED');
    await assertRejects(client.call(METHODS.ServiceReady, {}), 'ERR_CLOSED');
  }));

async function assertRejects(promise: Promise<unknown>, wanted: string): Promise<void> {
  try {
    await promise;
  } catch (error) {
    assert.ok(code(wanted)(error as { code: string }), `${(error as { code: string }).code}, not ${wanted}`);
    return;
  }
  assert.unreachable(`no ${wanted}`);
}

test("a frame's bytes may come in any pieces", () =>
  serving({}, async (server, port) => {
    const seen: string[] = [];
    server.handle(METHODS.QuerySegmentStatus, ({ name }) => {
      seen.push(name);
      return failure(-101);
    });
    const body = pack(METHODS.QuerySegmentStatus.arguments!, { name: 'n'.repeat(300) });
    const header = Buffer.alloc(20);
    header[0] = 0x15;
    header.writeUInt32LE(7, 4);
    header.writeUInt32LE(METHODS.QuerySegmentStatus.id, 8);
    header.writeUInt32LE(body.length, 12);
    const frame = Buffer.concat([header, body]);
    const twice = Buffer.concat([frame, frame]);
    for (const cuts of [
      [1],
      [19],
      [20],
      [21],
      [frame.length],
      [frame.length + 5],
      [3, 50, frame.length - 1, frame.length + 19],
    ]) {
      const chunks = [0, ...cuts].map((start, i) => twice.subarray(start, cuts[i] ?? twice.length));
      const got = await raw(port, chunks, 2 * 25);
      assert.is(got.length, 50);
      for (const answer of [got.subarray(0, 25), got.subarray(25)]) {
        assert.is(answer.readUInt32LE(4), 7);
        assert.equal(unpack(METHODS.QuerySegmentStatus.result, answer.subarray(16)), { ok: false, error: -101 });
      }
    }
    assert.is(seen.length, 14);
    assert.ok(seen.every((name) => name === 'n'.repeat(300)));
  }));

test('answers of all sizes arrive whole and in order, also where they are read late', () =>
  serving({}, async (server, port) => {
    server.handle(METHODS.BatchReplicaClear, ({ keys }) => success(keys));
    // Small ones share memory, large ones have their own; together more than the kernel takes at once.
    const sizes = Array.from({ length: 1500 }, (_, i) => (i % 50 === 49 ? 40_000 + i : 1 + ((i * 7919) % 20_000)));
    const keyOf = (i: number) => new Uint8Array(sizes[i]).map((_, at) => i * 31 + at);
    const frames = sizes.map((size, i) => {
      const keys = { bytes: keyOf(i), offsets: Uint32Array.of(0, size) };
      const asked = { keys, client: '0'.repeat(32), segment: '' };
      const body = pack(METHODS.BatchReplicaClear.arguments!, asked);
      const header = Buffer.alloc(20);
      header[0] = 0x15;
      header.writeUInt32LE(i, 4);
      header.writeUInt32LE(METHODS.BatchReplicaClear.id, 8);
      header.writeUInt32LE(body.length, 12);
      return Buffer.concat([header, body]);
    });
    const socket = connect({ port, host: '127.0.0.1' });
    socket.write(Buffer.concat(frames));
    await wait(300);
    const answers = sizes.map((size, i) => {
      const keys = { bytes: keyOf(i), offsets: Uint32Array.of(0, size) };
      return pack(METHODS.BatchReplicaClear.result, success(keys));
    });
    const total = answers.reduce((sum, { length }) => sum + 16 + length, 0);
    const chunks: Buffer[] = [];
    let came = 0;
    for await (const chunk of socket) {
      chunks.push(chunk);
      came += chunk.length;
      if (came >= total) break;
    }
    const got = Buffer.concat(chunks);
    let at = 0;
    for (const [i, answer] of answers.entries()) {
      assert.equal([got.readUInt32LE(at + 4), got.readUInt32LE(at + 8)], [i, answer.length]);
      at += 16;
      assert.is(Buffer.compare(got.subarray(at, at + answer.length), answer), 0, `answer ${i}`);
      at += answer.length;
    }
    assert.is(at, came);
    socket.destroy();
  }));

test('a method or a shape that is not known gets the error of the protocol, and is told once', () => {
  const refusals: Refusal[] = [];
  return serving({ onRefused: (refusal) => refusals.push(refusal) }, async (server, port) => {
    server.handle(METHODS.ExistKey, () => success(true));
    const client = await RpcClient.connect('127.0.0.1', port);
    for (let i = 0; i < 3; i++) {
      await assertRejects(client.call(METHODS.ServiceReady, {}), 'ERR_NOT_SUPPORTED');
      // What a client of before 0.3.12 sends: the key alone.
      const old = { ...METHODS.ExistKey, arguments: METHODS.QuerySegmentStatus.arguments } as typeof METHODS.ExistKey;
      await assertRejects(client.call(old, { name: 'key' } as never), 'ERR_PEER');
    }
    // The same connection goes on.
    assert.equal(await client.call(METHODS.ExistKey, { key: Buffer.from('k'), tenant: '' }), { ok: true, value: true });
    assert.is(server.stats.refused, 6);
    assert.is(refusals.length, 2);
    assert.equal(refusals[1].expected, ['7cf91ed8']);
    assert.is(refusals[1].code, '9dcffa76');
    client.close();
  });
});

test('what is no frame closes the connection, and nothing else', () =>
  serving({ maxRequestBytes: 1000 }, async (server, port) => {
    server.handle(METHODS.ServiceReady, () => success('2.0.0'));
    const good = Buffer.alloc(20);
    good[0] = 0x15;
    good.writeUInt32LE(METHODS.ServiceReady.id, 8);
    for (const [at, value] of [
      [0, 0x16],
      [1, 1],
      [2, 9],
      // A body of 16 MiB, and an attachment.
      [15, 1],
      [19, 1],
    ]) {
      const bad = Buffer.from(good);
      bad[at] = value;
      assert.is((await raw(port, [bad])).length, 0, `byte ${at}`);
    }
    assert.is((await raw(port, [good], 1)).length > 0, true);
  }));

test('what a handler throws, wrong or late, reaches that caller alone', () =>
  serving({}, async (server, port) => {
    server.handle(METHODS.ServiceReady, () => {
      throw new Error('at once');
    });
    server.handle(METHODS.GetFsdir, () => Promise.reject(new Error('later')));
    server.handle(METHODS.RemoveAll, () => 3n);
    const client = await RpcClient.connect('127.0.0.1', port);
    await assertRejects(client.call(METHODS.ServiceReady, {}), 'ERR_PEER');
    await assertRejects(client.call(METHODS.GetFsdir, {}), 'ERR_PEER');
    assert.is(await client.call(METHODS.RemoveAll, { force: true, tenant: 'default' }), 3n);
    assert.is(server.stats.failed, 2);
    client.close();
  }));

function requests(count: number): Buffer {
  const { id } = METHODS.ServiceReady;
  const frames = Buffer.alloc(20 * count);
  for (let i = 0; i < count; i++) {
    frames[20 * i] = 0x15;
    frames.writeUInt32LE(i, 20 * i + 4);
    frames.writeUInt32LE(id, 20 * i + 8);
  }
  return frames;
}

test('who leaves answers unread holds up itself alone', () =>
  serving({ maxUnreadBytes: 2 ** 16 }, async (server, port) => {
    const value = 'x'.repeat(2 ** 16);
    let started = 0;
    server.handle(METHODS.ServiceReady, () => {
      started++;
      return success(value);
    });
    const COUNT = 1000;
    const slow = connect({ port, host: '127.0.0.1' });
    slow.pause();
    slow.write(requests(COUNT));
    while (started === 0) await wait(5);
    await wait(100);
    const before = started;
    assert.ok(before < COUNT / 2, `${before} answers of 64 KiB wait for somebody who does not read`);
    const other = await RpcClient.connect('127.0.0.1', port);
    assert.ok((await other.call(METHODS.ServiceReady, {})).ok);
    other.close();
    let bytes = 0;
    const all = COUNT * (16 + 4 + 1 + 1 + 4 + value.length);
    slow.on('data', (chunk) => {
      bytes += chunk.length;
    });
    slow.resume();
    while (bytes < all) await wait(5);
    assert.is(bytes, all);
    assert.is(started, COUNT + 1);
    slow.destroy();
  }));

test('so many requests of a connection are under way at once, and all are answered', () =>
  serving({ maxCallsPerConnection: 3 }, async (server, port) => {
    let [now, most] = [0, 0];
    server.handle(METHODS.ServiceReady, async () => {
      most = Math.max(most, ++now);
      await wait(1);
      now--;
      return success('');
    });
    const size = 16 + 4 + 1 + 1;
    assert.is((await raw(port, [requests(50)], 50 * size)).length, 50 * size);
    assert.is(most, 3);
  }));

test('deadlines, signals, full queues and dead servers end a call', () =>
  serving({}, async (server, port) => {
    server.handle(METHODS.ServiceReady, () => new Promise(() => {}));
    const client = await RpcClient.connect('127.0.0.1', port, { maxCalls: 2 });
    const abort = new AbortController();
    const calls = [
      assertRejects(client.call(METHODS.ServiceReady, {}, { timeoutMs: 30 }), 'ERR_TIMEOUT'),
      assertRejects(client.call(METHODS.ServiceReady, {}, { signal: abort.signal }), 'ERR_ABORTED'),
    ];
    await assertRejects(client.call(METHODS.ServiceReady, {}), 'ERR_QUEUE_FULL');
    abort.abort();
    await Promise.all(calls);
    const last = assertRejects(client.call(METHODS.ServiceReady, {}), 'ERR_PEER');
    await server.close();
    await last;
    assert.is((await client.closed).code, 'ERR_PEER');
    await assertRejects(RpcClient.connect('127.0.0.1', port), 'ERR_PEER');
  }));

test.run();
