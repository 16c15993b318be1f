// Metadata in etcd and Redis: settings, and servers that lie, cut their answers in pieces, or never answer. Real servers are in
// test/interop.
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import * as fc from 'fast-check';
import { MooncakeError, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { serve } from '../support/engines.js';
import { rejects } from './support.js';

/** Of both keys of an engine: fields that are not known are passed over. */
const DESCRIPTOR = JSON.stringify({
  ip_or_host_name: '127.0.0.1',
  rpc_port: 4712,
  name: 'prefill:1',
  protocol: 'tcp',
  tcp_data_port: 4711,
  buffers: [{ name: 'é', addr: 4096, length: 8192 }],
});

/** A Redis that takes every SET and DEL, and answers a GET as it is told. */
async function redis(answer: (socket: Socket) => void) {
  const { name, server } = await serve((socket) =>
    socket.on('data', (bytes) => {
      const text = bytes.toString();
      if (text.includes('\r\nSET\r\n')) socket.write('+OK\r\n');
      else if (text.includes('\r\nDEL\r\n')) socket.write(':1\r\n');
      else answer(socket);
    }),
  );
  return { metadata: `redis://${name}`, close: () => server.close() };
}

/** An etcd that takes every put and delete, and answers a range as it is told. */
async function etcd(answer: () => { status?: number; text: string }) {
  const server = createServer((request, response) => {
    const { status = 200, text } = request.url === '/v3/kv/range' ? answer() : { text: '{}' };
    response.writeHead(status).end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { metadata: `etcd://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() };
}

async function opening(
  store: { metadata: string; close(): void },
  work: (engine: TransferEngine) => Promise<void>,
): Promise<void> {
  const engine = await TransferEngine.create({ metadata: store.metadata, native: false });
  try {
    await work(engine);
  } finally {
    await engine.close();
    store.close();
  }
}

test('settings that name no server are refused, and show no password', async () => {
  const bad = [
    'etcd://',
    'etcd://:2379',
    'etcd://host:port',
    'etcd://host:65536',
    'etcd://a:1,,b:2',
    'etcd://::1:2379',
    'etcd://ftp://host:1',
    'redis://a:1,b:2',
    'redis://host:6379/first',
    'redis://host:6379/4294967296',
    'redis://%zz:x@host',
    'rediss://',
    'http://',
    'memcached://host:11211',
    'host',
  ];
  for (const metadata of bad) {
    await rejects(TransferEngine.create({ metadata }), 'ERR_INVALID_ARGUMENT', 'options.metadata');
  }
  for (const metadata of ['etcd://me:top-secret@ho st:1', 'redis://me:top-secret@/1', 'ftp://me:top-secret@host']) {
    const error = await rejects(TransferEngine.create({ metadata }), 'ERR_INVALID_ARGUMENT');
    assert.not.match(`${error.message} ${error.value}`, /top-secret/);
  }
});

test('an answer of Redis is read however it is cut', async () => {
  const whole = Buffer.from(`$${Buffer.byteLength(DESCRIPTOR)}\r\n${DESCRIPTOR}\r\n`);
  let cuts: number[] = [];
  await opening(
    await redis(async (socket) => {
      socket.setNoDelay();
      let at = 0;
      for (const cut of [...cuts, whole.length]) {
        socket.write(whole.subarray(at, cut));
        at = cut;
        await new Promise(setImmediate);
      }
    }),
    async (engine) => {
      const places = fc.uniqueArray(fc.nat(whole.length), { maxLength: 6 }).map((all) => all.sort((a, b) => a - b));
      await fc.assert(
        fc.asyncProperty(places, async (drawn) => {
          cuts = drawn;
          const peer = await engine.open('prefill:1');
          assert.equal(peer.segments, [{ id: 0, name: 'é', address: 4096n, length: 8192 }]);
          await peer.close();
        }),
        { numRuns: 60 },
      );
    },
  );
});

const LIES: [answer: string, code: string][] = [
  ['$-1\r\n', 'ERR_PEER'],
  ['-LOADING Redis is loading the dataset in memory\r\n', 'ERR_PEER'],
  ['', 'ERR_PEER'],
  ['$4\r\n{}', 'ERR_PEER'],
  [':7\r\n', 'ERR_PROTOCOL'],
  ['$2\r\n{}\r\n', 'ERR_PROTOCOL'],
  ['$-2\r\n', 'ERR_PROTOCOL'],
  ['$99999999999\r\n', 'ERR_PROTOCOL'],
  ['*1\r\n$2\r\n{}\r\n', 'ERR_PROTOCOL'],
  ['HTTP/1.1 400 Bad Request\r\n\r\n', 'ERR_PROTOCOL'],
  ['+'.repeat(200_000), 'ERR_PROTOCOL'],
];

test('what is no answer of Redis is refused', async () => {
  let lie = '';
  await opening(await redis((socket) => socket.end(lie)), async (engine) => {
    for (const [answer, code] of LIES) {
      lie = answer;
      const error = await engine.open('prefill:1').catch((reason) => reason);
      assert.instance(error, MooncakeError);
      assert.is(error.code, code, JSON.stringify(answer.slice(0, 40)));
    }
  });
});

const base64 = (text: string) => Buffer.from(text).toString('base64');

const STRANGE: [status: number, text: string, code: string][] = [
  [200, '{"header":{}}', 'ERR_PEER'],
  [200, `{"kvs":[{"key":"a2V5","value":"${base64('{}')}"}]}`, 'ERR_PROTOCOL'],
  [200, '{"kvs":[{"key":"a2V5"}]}', 'ERR_PROTOCOL'],
  [200, '{"kvs":[{"value":7}]}', 'ERR_PROTOCOL'],
  [200, '{"kvs":{}}', 'ERR_PROTOCOL'],
  [200, '[]', 'ERR_PROTOCOL'],
  [404, '404 page not found', 'ERR_PROTOCOL'],
  [503, '{"error":"etcdserver: no leader","code":14}', 'ERR_PEER'],
  [401, '{"error":"etcdserver: invalid auth token","code":16}', 'ERR_PEER'],
];

test('what is no answer of etcd is refused', async () => {
  let lie = { status: 200, text: '' };
  await opening(await etcd(() => lie), async (engine) => {
    for (const [status, text, code] of STRANGE) {
      lie = { status, text };
      const error = await engine.open('prefill:1').catch((reason) => reason);
      assert.instance(error, MooncakeError);
      assert.is(error.code, code, text);
    }
    lie = { status: 200, text: `{"kvs":[{"key":"a2V5","value":"${base64(`${DESCRIPTOR}\n`)}"}]}` };
    assert.is((await engine.open('prefill:1')).segments[0].length, 8192);
  });
});

test('a server that never answers holds nobody', async () => {
  for (const scheme of ['redis', 'etcd']) {
    const { name, server } = await serve(() => {});
    const engine = TransferEngine.create({ metadata: `${scheme}://${name}`, native: false });
    await rejects(engine, 'ERR_TIMEOUT');
    server.close();
  }
});

test.run();
