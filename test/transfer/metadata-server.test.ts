// The HTTP metadata server, as a stock client uses it and as nobody should; engines that find each other by it.
import { request as httpRequest } from 'node:http';
import { TransferEngine } from 'mooncake-ts';
import { MetadataServer } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { create, PLANES, serve } from '../support/engines.js';
import { rejects } from './support.js';

async function ask(url: string, method: string, key?: string, body?: string) {
  const target = new URL(url);
  if (key !== undefined) target.searchParams.set('key', key);
  const response = await fetch(target, { method, body });
  return { status: response.status, text: await response.text() };
}

async function withServer(options: object, work: (server: MetadataServer) => Promise<void>): Promise<void> {
  const server = await MetadataServer.listen({ port: 0, ...options });
  try {
    await work(server);
  } finally {
    await server.close();
  }
}

test('puts, gets and deletes as stock clients expect', () =>
  withServer({}, async (server) => {
    assert.match(server.url, /^http:\/\/127\.0\.0\.1:\d+\/metadata$/);
    const key = 'mooncake/ram/192.0.2.2:4711 & more=%';
    assert.is((await ask(server.url, 'GET', key)).status, 404);
    assert.is((await ask(server.url, 'DELETE', key)).status, 404);
    assert.is((await ask(server.url, 'PUT', key, '{"a":1}')).status, 200);
    assert.equal(await ask(server.url, 'GET', key), { status: 200, text: '{"a":1}' });
    assert.is((await ask(server.url, 'PUT', key, '{"a":2}')).status, 200);
    assert.is((await ask(server.url, 'GET', key)).text, '{"a":2}');
    assert.equal(server.figures, { keys: 1, bytes: key.length + 7 });
    assert.is((await ask(server.url, 'DELETE', key)).status, 200);
    assert.equal(server.figures, { keys: 0, bytes: 0 });
    assert.is((await ask(server.url.replace('/metadata', '/health'), 'GET')).status, 200);
    assert.is((await ask(server.url.replace('/metadata', '/'), 'GET')).status, 404);
  }));

test('a name that another engine has is refused, the same one again is not', () =>
  withServer({}, async ({ url }) => {
    for (const key of ['mooncake/rpc_meta/h:1', 'mooncake/cluster/rpc_meta/h:1']) {
      assert.is((await ask(url, 'PUT', key, '{"rpc_port":1}')).status, 200);
      assert.is((await ask(url, 'PUT', key, '{"rpc_port":1}')).status, 200);
      const refused = await ask(url, 'PUT', key, '{"rpc_port":2}');
      assert.is(refused.status, 400);
      assert.match(refused.text, /Duplicate rpc_meta key not allowed/);
      assert.is((await ask(url, 'GET', key)).text, '{"rpc_port":1}');
    }
  }));

test('keys, values and their number are bounded', () =>
  withServer({ maxKeys: 2, maxValueBytes: 100, maxBytes: 150 }, async ({ url }) => {
    assert.is((await ask(url, 'GET')).status, 400);
    assert.is((await ask(url, 'GET', '')).status, 400);
    assert.is((await ask(url, 'PUT', 'k'.repeat(1025), 'v')).status, 400);
    assert.is((await ask(url, 'PUT', 'a', 'v'.repeat(101))).status, 413);
    assert.is((await ask(url, 'POST', 'a', 'v')).status, 405);
    assert.is((await ask(url, 'PUT', 'a', 'v'.repeat(99))).status, 200);
    assert.is((await ask(url, 'PUT', 'b', 'v'.repeat(50))).status, 507);
    assert.is((await ask(url, 'PUT', 'b', 'v'.repeat(49))).status, 200);
    assert.is((await ask(url, 'PUT', 'c', '')).status, 507);
    assert.is((await ask(url, 'PUT', 'b', 'v'.repeat(51))).status, 507);
    assert.is((await ask(url, 'PUT', 'b', '')).status, 200);
    assert.is((await ask(url, 'PUT', 'b', 'v'.repeat(49))).status, 200);
  }));

test('requests that break off, and URLs that are none, harm nobody', () =>
  withServer({}, async ({ url }) => {
    const { hostname, port } = new URL(url);
    await new Promise<void>((resolve) => {
      const headers = { 'content-length': 1000 };
      const breaking = httpRequest({ host: hostname, port, path: '/metadata?key=x', method: 'PUT', headers });
      breaking.on('error', () => resolve());
      breaking.write('half', () => breaking.destroy());
    });
    const status = await new Promise((resolve) => {
      httpRequest({ host: hostname, port, path: '//[' }, (response) => resolve(response.resume().statusCode)).end();
    });
    assert.is(status, 404);
    assert.is((await ask(url, 'GET', 'x')).status, 404);
  }));

test('a port that is taken, and options that are none', () =>
  withServer({}, async ({ url }) => {
    await rejects(MetadataServer.listen({ port: Number(new URL(url).port) }), 'ERR_PEER');
    await rejects(MetadataServer.listen({ port: -1 }), 'ERR_INVALID_ARGUMENT', 'options.port');
    await rejects(MetadataServer.listen({ maxKeys: 0 }), 'ERR_INVALID_ARGUMENT', 'options.maxKeys');
  }));

for (const plane of PLANES) {
  test(`${plane.name}: engines find each other by the server, and are gone from it after close`, () =>
    withServer({ host: '::1' }, async (server) => {
      const [a, b] = [await create(plane, { metadata: server.url }), await create(plane, { metadata: server.url })];
      assert.equal(server.figures.keys, 4);
      const ours = await a.allocate(4096);
      const peer = await a.open(b.name);
      assert.equal(peer.segments, []);
      const theirs = await b.register(pattern(4096));
      await peer.refresh();
      await a.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 4096));
      assert.equal(ours.memory, pattern(4096));
      assert.is(await a.probe(b.name), true);
      const got = new Promise((resolve) => b.onNotification(resolve));
      await a.notify(b.name, { name: 'n', message: 'm' });
      assert.equal(await got, { name: 'n', message: 'm' });
      const place = JSON.parse((await ask(server.url, 'GET', `mooncake/rpc_meta/${b.name}`)).text);
      assert.equal(place, { ip_or_host_name: '127.0.0.1', rpc_port: Number(b.name.split(':')[1]) });
      await b.unregister(theirs.id);
      assert.equal(JSON.parse((await ask(server.url, 'GET', `mooncake/ram/${b.name}`)).text).buffers, []);
      await b.close();
      await rejects(a.open(b.name), 'ERR_PEER');
      assert.is(await a.probe(b.name), false);
      await a.close();
      assert.equal(server.figures, { keys: 0, bytes: 0 });
    }));
}

test('many registrations at once end with a descriptor that has them all', () =>
  withServer({}, async (server) => {
    const engine = await TransferEngine.create({ metadata: server.url });
    const segments = await Promise.all(Array.from({ length: 100 }, () => engine.allocate(100)));
    const read = async () =>
      JSON.parse((await ask(server.url, 'GET', `mooncake/ram/${engine.name}`)).text).buffers.length;
    assert.is(await read(), 100);
    await Promise.all(segments.slice(1).map(({ id }) => engine.unregister(id)));
    assert.is(await read(), 1);
    await engine.close();
  }));

test('a cluster has keys of its own', async () => {
  process.env.MC_METADATA_CLUSTER_ID = 'blue';
  try {
    await withServer({}, async (server) => {
      const engine = await TransferEngine.create({ metadata: server.url });
      assert.is((await ask(server.url, 'GET', `mooncake/blue/ram/${engine.name}`)).status, 200);
      assert.is((await ask(server.url, 'GET', `mooncake/blue/rpc_meta/${engine.name}`)).status, 200);
      assert.is(server.figures.keys, 2);
      await engine.close();
    });
  } finally {
    delete process.env.MC_METADATA_CLUSTER_ID;
  }
});

test('a server that is gone, silent or talks nonsense: a typed error in time, and close still ends', async () => {
  await rejects(TransferEngine.create({ metadata: 'http://127.0.0.1:1/metadata' }), 'ERR_PEER');
  const server = await MetadataServer.listen({ port: 0 });
  const engine = await TransferEngine.create({ metadata: server.url });
  await server.close();
  const before = engine.statistics().segments.count;
  await rejects(engine.allocate(100), 'ERR_PEER');
  assert.is(engine.statistics().segments.count, before);
  await rejects(engine.open('127.0.0.1:4'), 'ERR_PEER');
  await engine.close();
  const silent = await serve(() => {});
  await rejects(TransferEngine.create({ metadata: `http://${silent.name}/metadata` }), 'ERR_TIMEOUT');
  silent.server.close();
  for (const answer of ['HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n', 'nonsense\r\n\r\n']) {
    const odd = await serve((socket) => socket.once('data', () => socket.end(answer)));
    await rejects(TransferEngine.create({ metadata: `http://${odd.name}/metadata` }), 'ERR_PEER');
    odd.server.close();
  }
});

test.run();
