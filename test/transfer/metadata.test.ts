// Segment descriptors and handshakes: what strangers send is read strictly, what we send is what the wire documents.
import * as fc from 'fast-check';
import { MooncakeError, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { create, frame, PLANES, request, serve, talk } from '../support/engines.js';
import { rejects } from './support.js';

const STOCK = {
  name: '127.0.0.1:16614',
  protocol: 'tcp',
  tcp_data_port: 15645,
  tcp_proto_version: 2,
  tcp_data_host: '127.0.0.1',
  rdma_server_name: '',
  timestamp: '2026-11-22 23:56:54.253340',
  buffers: [{ name: '127.0.0.1:16614', addr: 140147366559744, length: 67108864 }],
};
const OWN = {
  version: 1,
  generation: '0123456789abcdef',
  endpoints: [],
  segments: [{ id: 3, name: 'kv', address: 4096, length: 8192 }],
};

/** An engine that opens a peer which answers every handshake with these bytes. */
async function opening(answer: () => Uint8Array, work: (engine: TransferEngine, name: string) => Promise<void>) {
  const { name, server } = await serve((socket) => socket.on('data', () => socket.end(answer())));
  const engine = await TransferEngine.create({ native: false, timeoutMs: 5000 });
  try {
    await work(engine, name);
  } finally {
    await engine.close();
    server.close();
  }
}

const withDescriptor = (text: () => string, work: (engine: TransferEngine, name: string) => Promise<void>) =>
  opening(() => frame(1, text()), work);

test('a stock descriptor is read; its buffers keep their numbers, and new ones get new ones', async () => {
  let json: object = STOCK;
  await withDescriptor(
    () => `${JSON.stringify(json)}\n`,
    async (engine, name) => {
      const peer = await engine.open(name);
      assert.is(peer.generation, undefined);
      const kept = { id: 0, name: STOCK.name, address: 140147366559744n, length: 67108864 };
      assert.equal(peer.segments, [kept]);
      const other = { name: 'x', addr: 8192, length: 5 };
      json = { ...STOCK, tcp_proto_version: undefined, buffers: [other, ...STOCK.buffers] };
      await peer.refresh();
      assert.equal(peer.segments, [{ id: 1, name: 'x', address: 8192n, length: 5 }, kept]);
      json = { ...STOCK, buffers: [{ ...other, length: 6 }] };
      await peer.refresh();
      assert.equal(peer.segments, [{ id: 2, name: 'x', address: 8192n, length: 6 }]);
    },
  );
});

test('addresses of 64 bits are exact', async () => {
  const buffers = '[{"name":"a \\" 12345678901234567890","addr":18446744073709486080,"length":65536}]';
  await withDescriptor(
    () => JSON.stringify({ ...STOCK, buffers: 0, factor: 1 / 3 }).replace('"buffers":0', `"buffers":${buffers}`),
    async (engine, name) => {
      const peer = await engine.open(name);
      assert.equal(peer.segments, [
        { id: 0, name: 'a " 12345678901234567890', address: 18446744073709486080n, length: 65536 },
      ]);
      assert.equal(peer.at(18446744073709551615n, 1), { segment: 0, offset: 65535 });
      const ours = await engine.allocate(16);
      await rejects(engine.read(peer, one(0, 0, ours.id, 0, 16)), 'ERR_SEGMENT');
    },
  );
});

const BAD: [what: string, json: unknown][] = [
  ['no object', [STOCK]],
  ['no name', { ...STOCK, name: undefined }],
  ['an empty name', { ...STOCK, name: '' }],
  ['no protocol', { ...STOCK, protocol: 7 }],
  ['no port', { ...STOCK, tcp_data_port: undefined }],
  ['port 0', { ...STOCK, tcp_data_port: 0 }],
  ['port 65536', { ...STOCK, tcp_data_port: 65536 }],
  ['a port that is a string', { ...STOCK, tcp_data_port: '15645' }],
  ['version 0', { ...STOCK, tcp_proto_version: 0 }],
  ['version 1.5', { ...STOCK, tcp_proto_version: 1.5 }],
  ['a host with a path', { ...STOCK, tcp_data_host: '127.0.0.1/../x' }],
  ['buffers that are no list', { ...STOCK, buffers: { 0: STOCK.buffers[0] } }],
  ['a buffer without name', { ...STOCK, buffers: [{ ...STOCK.buffers[0], name: '' }] }],
  ['a buffer at 0', { ...STOCK, buffers: [{ ...STOCK.buffers[0], addr: 0 }] }],
  ['a buffer below 0', { ...STOCK, buffers: [{ ...STOCK.buffers[0], addr: -4096 }] }],
  ['a buffer of no bytes', { ...STOCK, buffers: [{ ...STOCK.buffers[0], length: 0 }] }],
  ['a length of 1.5', { ...STOCK, buffers: [{ ...STOCK.buffers[0], length: 1.5 }] }],
  ['a length past 2 ** 53', { ...STOCK, buffers: [{ ...STOCK.buffers[0], length: 2 ** 60 }] }],
  ['an address that is a string', { ...STOCK, buffers: [{ ...STOCK.buffers[0], addr: '4096' }] }],
  ['an address of 1e300', { ...STOCK, buffers: [{ ...STOCK.buffers[0], addr: 1e300 }] }],
  ['a null buffer', { ...STOCK, buffers: [null] }],
  ['our key that is no object', { ...STOCK, mooncake_ts: 'yes' }],
  ['our key without version', { ...STOCK, mooncake_ts: { ...OWN, version: undefined } }],
  ['a generation of other letters', { ...STOCK, mooncake_ts: { ...OWN, generation: '0123456789ABCDEF' } }],
  ['endpoints that are no list', { ...STOCK, mooncake_ts: { ...OWN, endpoints: {} } }],
  ['settings that nest', { ...STOCK, mooncake_ts: { ...OWN, endpoints: [{ transport: 'tcp', settings: { a: {} } }] } }],
  ['a segment of 2 ** 32', { ...STOCK, mooncake_ts: { ...OWN, segments: [{ ...OWN.segments[0], id: 2 ** 32 }] } }],
  ['a number used twice', { ...STOCK, mooncake_ts: { ...OWN, segments: [OWN.segments[0], OWN.segments[0]] } }],
];

test('a descriptor that does not fit is refused', async () => {
  let text = '';
  await withDescriptor(
    () => text,
    async (engine, name) => {
      for (const [what, json] of BAD) {
        text = JSON.stringify(json);
        const error = await engine.open(name).catch((reason) => reason);
        assert.is(error?.code, 'ERR_PROTOCOL', what);
      }
      const overflowing = '"addr":18446744073709551615,"length":2';
      text = JSON.stringify(STOCK).replace(/"addr":\d+,"length":\d+/, overflowing);
      await rejects(engine.open(name), 'ERR_PROTOCOL');
      text = JSON.stringify({ ...STOCK, protocol: 'rdma' });
      await rejects(engine.open(name), 'ERR_NOT_SUPPORTED');
      // A version that is still to come: as stock.
      text = JSON.stringify({ ...STOCK, mooncake_ts: { version: 2, generation: [] } });
      assert.is((await engine.open(name)).segments.length, 1);
    },
  );
});

test('any JSON, and any text, is read or refused', async () => {
  let text = '';
  await withDescriptor(
    () => text,
    async (engine, name) => {
      const mutated = fc
        .tuple(
          fc.constantFrom({ ...STOCK }, { ...STOCK, mooncake_ts: OWN }),
          fc.constantFrom(...Object.keys(STOCK), 'mooncake_ts'),
          fc.jsonValue(),
        )
        .map(([json, key, value]) => JSON.stringify({ ...json, [key]: value }));
      const deep = fc.integer({ min: 1, max: 200_000 }).map((depth) => '['.repeat(depth));
      const escapes = fc.integer({ min: 1, max: 200_000 }).map((count) => `"1234567890123456${'\\"'.repeat(count)}`);
      const cut = fc.tuple(mutated, fc.nat(200)).map(([json, at]) => json.slice(0, at));
      await fc.assert(
        fc.asyncProperty(fc.oneof(mutated, fc.json(), fc.string(), deep, escapes, cut), async (sent) => {
          text = sent;
          const result = await engine.open(name).catch((error) => error);
          if (result instanceof Error) {
            assert.instance(result, MooncakeError, `${result.stack} for ${text.slice(0, 500)}`);
            assert.ok(['ERR_PROTOCOL', 'ERR_NOT_SUPPORTED'].includes((result as MooncakeError).code), `${result}`);
          } else result.close();
        }),
        { numRuns: 300 },
      );
    },
  );
});

test('answers that are no handshakes are refused in time', async () => {
  let answer: Uint8Array = new Uint8Array();
  await opening(
    () => answer,
    async (engine, name) => {
      const length = (value: bigint) => {
        const bytes = frame(1, JSON.stringify(STOCK));
        bytes.writeBigUInt64LE(value);
        return bytes;
      };
      for (const [bytes, code] of [
        [frame(2, JSON.stringify(STOCK)), 'ERR_PROTOCOL'],
        [length(0n), 'ERR_PROTOCOL'],
        [length(1n << 40n), 'ERR_PROTOCOL'],
        [length((1n << 64n) - 1n), 'ERR_PROTOCOL'],
        [length(5n), 'ERR_PROTOCOL'],
        [length(1_000_000n), 'ERR_PEER'],
        [Buffer.concat([frame(1, 'x'), Buffer.from([0xff])]), 'ERR_PROTOCOL'],
        [Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]), 'ERR_PROTOCOL'],
        [new Uint8Array(), 'ERR_PEER'],
      ] as const) {
        answer = bytes;
        await rejects(engine.open(name), code);
      }
    },
  );
  // A peer that takes the request and is silent.
  const { name, server } = await serve(() => {});
  const engine = await TransferEngine.create({ native: false });
  await rejects(engine.open(name, { timeoutMs: 200 }), 'ERR_TIMEOUT');
  await rejects(engine.notify(name, { name: 'n', message: 'm' }, { timeoutMs: 200 }), 'ERR_TIMEOUT');
  assert.is(await engine.probe(name, { timeoutMs: 200 }), false);
  const controller = new AbortController();
  const aborted = rejects(engine.open(name, { signal: controller.signal }), 'ERR_ABORTED');
  controller.abort();
  await aborted;
  await engine.close();
  server.close();
});

for (const plane of PLANES) {
  test(`${plane.name}: what an engine answers is the documented wire`, async () => {
    const engine = await create(plane);
    const segment = await engine.allocate(100_000, { name: 'kv "cache"' });
    const answerTo = async (bytes: Uint8Array) => {
      const answer = await talk(engine.name, bytes);
      assert.is(Number(answer.readBigUInt64LE()), answer.length - 8);
      return answer.subarray(8);
    };
    assert.is((await answerTo(Buffer.from('0400000000000000037b7d0a', 'hex'))).toString(), '\x03{"status":"success"}');
    const text = (await answerTo(frame(1, '{}'))).subarray(1).toString();
    const json = JSON.parse(text);
    const [host, port] = engine.name.split(':');
    assert.is(json.name, engine.name);
    assert.is(json.protocol, 'tcp');
    assert.is(json.tcp_data_port, Number(port));
    assert.is(json.tcp_proto_version, 2);
    assert.is(json.tcp_data_host, host);
    assert.is(json.rdma_server_name, '');
    assert.match(json.timestamp, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$/);
    assert.equal(json.buffers, [{ name: engine.name, addr: Number(segment.address), length: 100_000 }]);
    const { version, generation, endpoints, segments } = json.mooncake_ts;
    assert.is(version, 1);
    assert.is(generation, engine.generation);
    assert.equal(segments, [{ id: segment.id, name: 'kv "cache"', address: Number(segment.address), length: 100_000 }]);
    if (!plane.native) assert.equal(endpoints, []);
    const notify = JSON.stringify({ name: 'n', notify_msg: 'm' });
    const got = new Promise((resolve) => engine.onNotification(resolve));
    assert.is((await answerTo(frame(2, notify))).toString(), '\x02{"name":"","notify_msg":"success"}');
    assert.equal(await got, { name: 'n', message: 'm' });
    // Before there were types: the text alone, answered by text alone; it asks for an RDMA connection.
    const old = Buffer.from(JSON.stringify({ local_nic_path: 'a@mlx5_0', qp_num: [1] }));
    const bare = Buffer.concat([Buffer.alloc(8), old]);
    bare.writeBigUInt64LE(BigInt(old.length));
    const refusal = JSON.parse((await answerTo(bare)).toString());
    assert.ok(refusal.reply_msg.length > 0);
    assert.equal(refusal.qp_num, []);
    await engine.close();
  });

  test(`${plane.name}: a handshake in pieces of one byte is one`, async () => {
    const engine = await create(plane);
    const { createConnection } = await import('node:net');
    const [host, port] = engine.name.split(':');
    const socket = createConnection({ host, port: Number(port), noDelay: true });
    const answer = new Promise<Buffer>((resolve) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => resolve(Buffer.concat(chunks)));
    });
    for (const byte of frame(3, '{ "some": "text" }')) {
      socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.is((await answer).subarray(9).toString(), '{"status":"success"}');
    socket.destroy();
    await engine.close();
  });

  test(`${plane.name}: random bytes, and handshakes that lie, close the connection and nothing else`, async () => {
    const engine = await create(plane);
    const memory = await engine.allocate(4096);
    const lying = fc
      .tuple(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), fc.uint8Array({ maxLength: 64 }))
      .map(([length, body]) => {
        const bytes = Buffer.alloc(8 + body.length);
        bytes.writeBigUInt64LE(length);
        bytes.set(body, 8);
        return bytes;
      });
    // Padded, so that no prefix leaves the other side waiting for the rest until its deadline.
    const long = fc.uint8Array({ minLength: 24, maxLength: 400 });
    const requests = fc
      .tuple(
        fc.integer({ min: 2, max: 255 }),
        fc.bigInt({ min: 0n, max: (1n << 48n) - 1n }),
        fc.bigInt({ min: 1n, max: (1n << 48n) - 1n }),
      )
      .filter(([opcode]) => ![0x80, 0x81].includes(opcode))
      .map(([opcode, address, size]) => request(opcode, address, size));
    await fc.assert(
      fc.asyncProperty(fc.oneof(long, requests, lying), async (bytes) => {
        const { createConnection } = await import('node:net');
        const [host, port] = engine.name.split(':');
        const socket = createConnection({ host, port: Number(port) });
        socket.on('error', () => {});
        await new Promise<void>((resolve) => {
          socket.on('close', () => resolve());
          socket.on('data', () => {});
          socket.end(bytes);
        });
      }),
      { numRuns: 200 },
    );
    assert.equal(memory.memory, new Uint8Array(4096));
    assert.is(await engine.probe(engine.name), true);
    await engine.close();
  });
}

test.run();
