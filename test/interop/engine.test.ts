// The stock transfer engine as the peer, both ways, over each data plane, by P2P and by our metadata server. Contents are
// compared by SHA-256 that each side computes over its own memory.
import { createHash } from 'node:crypto';
import { MooncakeError, type TransferEngine } from 'mooncake-ts';
import { MetadataServer } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { create, PLANES, type Plane } from '../support/engines.js';
import { Stock } from './stock.js';

const MIB = 2 ** 20;
const SIZES = [1, 7, 8, 4095, 65_536, MIB + 1, 48 * MIB + 13];
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'resolved',
    (error) => (error instanceof MooncakeError ? error.code : String(error)),
  );

interface Pair {
  engine: TransferEngine;
  stock: Stock;
  server?: MetadataServer;
}

async function withPair(plane: Plane, metadata: string, work: (pair: Pair) => Promise<void>): Promise<void> {
  const server = metadata === 'HTTP' ? await MetadataServer.listen({ port: 0 }) : undefined;
  const engine = await create(plane, { metadata: server?.url, timeoutMs: 60_000 });
  const stock = await Stock.start(server?.url);
  try {
    await work({ engine, stock, server });
    await stock.end();
    await engine.close();
    if (server) assert.equal(server.figures, { keys: 0, bytes: 0 });
  } finally {
    await stock.end();
    await engine.close();
    await server?.close();
  }
}

for (const plane of PLANES) {
  for (const metadata of ['P2P', 'HTTP']) {
    const name = `${plane.name}, ${metadata}`;

    test(`${name}: one range of 1 byte to 48 MiB, each way`, () =>
      withPair(plane, metadata, async ({ engine, stock }) => {
        const size = 49 * MIB;
        const theirs = await stock.allocate(size);
        const ours = await engine.allocate(size);
        const base = Number(ours.address);
        const peer = await engine.open(stock.name);
        const { id } = peer.segments[0];
        for (const [seed, length] of SIZES.entries()) {
          const [here, there] = [seed * 5, seed * 11];
          const mine = () => digest(ours.memory.subarray(here, here + length));
          const its = () => stock.digest(theirs + there, length);
          await stock.fill(theirs, size, seed + 1);
          assert.is((await engine.read(peer, one(id, there, ours.id, here, length))).bytes, length);
          assert.is(mine(), await its(), `we read ${length}`);
          ours.memory.set(pattern(length, seed + 50), here);
          await engine.write(peer, one(ours.id, here, id, there, length));
          assert.is(mine(), await its(), `we write ${length}`);
          ours.memory.set(pattern(length, seed + 90), here);
          assert.is((await stock.transfer('read', engine.name, theirs + there, base + here, length)).code, 0);
          assert.is(mine(), await its(), `it reads ${length}`);
          await stock.fill(theirs, size, seed + 20);
          assert.is((await stock.transfer('write', engine.name, theirs + there, base + here, length)).code, 0);
          assert.is(mine(), await its(), `it writes ${length}`);
        }
      }));

    test(`${name}: batches, each way`, () =>
      withPair(plane, metadata, async ({ engine, stock }) => {
        const [block, count] = [10_007, 300];
        const size = block * count;
        const theirs = await stock.allocate(size);
        const ours = await engine.allocate(size);
        const base = Number(ours.address);
        await stock.fill(theirs, size, 3);
        const peer = await engine.open(stock.name);
        const places = Array.from({ length: count }, (_, index) => ({
          from: ((index * 7) % count) * block,
          to: index * block,
        }));
        const batch = (source: number, destination: number) =>
          descriptorsOf(
            places.map(({ from, to }) => ({
              sourceSegment: source,
              destinationSegment: destination,
              sourceOffset: from,
              destinationOffset: to,
              length: block,
            })),
          );
        const { id } = peer.segments[0];
        await engine.read(peer, batch(id, ours.id));
        for (const { from, to } of places.filter((_, index) => index % 37 === 0)) {
          assert.is(digest(ours.memory.subarray(to, to + block)), await stock.digest(theirs + from, block));
        }
        ours.memory.set(pattern(size, 8));
        await engine.write(peer, batch(ours.id, id));
        for (const { from, to } of places.filter((_, index) => index % 37 === 0)) {
          assert.is(digest(ours.memory.subarray(from, from + block)), await stock.digest(theirs + to, block));
        }
        const some = places.slice(0, 100);
        const lengths = some.map(() => block);
        for (const [op, call] of [
          ['read', stock.batch],
          ['write', stock.batch],
          ['read', stock.batchAsync],
          ['write', stock.batchAsync],
        ] as const) {
          ours.memory.set(pattern(size, 31));
          await stock.fill(theirs, size, 17);
          const buffers = some.map(({ from }) => theirs + from);
          const remotes = some.map(({ to }) => base + to);
          assert.is((await call.call(stock, op, engine.name, buffers, remotes, lengths)).code, 0, op);
          for (const { from, to } of some.filter((_, index) => index % 11 === 0)) {
            assert.is(digest(ours.memory.subarray(to, to + block)), await stock.digest(theirs + from, block), op);
          }
        }
      }));

    test(`${name}: memory that comes and goes`, () =>
      withPair(plane, metadata, async ({ engine, stock }) => {
        const peer = await engine.open(stock.name);
        assert.equal(peer.segments, []);
        const addresses = await stock.allocateBatch(4096, 5);
        await peer.refresh();
        assert.is(peer.segments.length, 5);
        const ours = await engine.allocate(4096);
        assert.is(await stock.firstBuffer(engine.name), Number(ours.address));
        const kept = peer.at(BigInt(addresses[4]), 4096).segment;
        await stock.release(addresses[0]);
        await peer.refresh();
        assert.is(peer.segments.length, 4);
        assert.equal(peer.at(BigInt(addresses[4]) + 8n, 8), { segment: kept, offset: 8 });
        await stock.fill(addresses[4], 4096, 6);
        await engine.read(peer, one(kept, 0, ours.id, 0, 4096));
        assert.is(digest(ours.memory), await stock.digest(addresses[4], 4096));
      }));

    test(`${name}: notifications and probes, each way`, () =>
      withPair(plane, metadata, async ({ engine, stock }) => {
        const theirs = await stock.allocate(4096);
        const ours = await engine.allocate(4096);
        await stock.fill(theirs, 4096, 1);
        const got = new Promise((resolve) => engine.onNotification(resolve));
        const sent = await stock.writeAndNotify(engine.name, theirs, Number(ours.address), 4096, 'prefill', 'done ✓');
        assert.is(sent.code, 0);
        assert.equal(await got, { name: 'prefill', message: 'done ✓' });
        assert.is(digest(ours.memory), await stock.digest(theirs, 4096));
        await engine.notify(stock.name, { name: 'decode "1"', message: 'ready ✓' });
        assert.equal(await stock.notifications(), [{ name: 'decode "1"', message: 'ready ✓' }]);
        assert.is(await engine.probe(stock.name), true);
        assert.is((await stock.probe(engine.name)).code, 0);
      }));

    test(`${name}: what it may not touch it does not, and goes on`, () =>
      withPair(plane, metadata, async ({ engine, stock }) => {
        const theirs = await stock.allocate(4096);
        const ours = await engine.allocate(4096);
        const constant = await engine.allocate(4096, { access: 'read' });
        await stock.fill(theirs, 4096, 1);
        const beyond = await stock.transfer('write', engine.name, theirs, Number(ours.address) + 1, 4096);
        assert.is.not(beyond.code, 0);
        const forbidden = await stock.transfer('write', engine.name, theirs, Number(constant.address), 16);
        assert.is.not(forbidden.code, 0);
        assert.ok([...ours.memory, ...constant.memory].every((byte) => byte === 0));
        const peer = await engine.open(stock.name);
        assert.is(await codeOf(engine.read(peer, one(peer.segments[0].id, 1, ours.id, 0, 4096))), 'ERR_SEGMENT');
        // Taken away behind our back.
        await stock.release(theirs);
        const late = await codeOf(
          engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, 4096), { timeoutMs: 8000 }),
        );
        assert.ok(['ERR_SEGMENT', 'ERR_PEER'].includes(late), late);
        const again = await stock.allocate(4096);
        await stock.fill(again, 4096, 2);
        await peer.refresh();
        await engine.read(peer, one(peer.at(BigInt(again), 4096).segment, 0, ours.id, 0, 4096));
        assert.is(digest(ours.memory), await stock.digest(again, 4096));
      }));

    test(`${name}: it is killed, and we say so in time`, () =>
      withPair(plane, metadata, async ({ engine, stock, server }) => {
        await stock.allocate(64 * MIB);
        const ours = await engine.allocate(64 * MIB);
        const peer = await engine.open(stock.name);
        const { id } = peer.segments[0];
        await engine.read(peer, one(id, 0, ours.id, 0, 4096));
        const moves = Array.from({ length: 8 }, () =>
          codeOf(engine.read(peer, one(id, 0, ours.id, 0, 64 * MIB), { timeoutMs: 20_000 })),
        );
        stock.process.kill('SIGKILL');
        for (const code of await Promise.all(moves)) assert.ok(['ERR_PEER', 'resolved'].includes(code), code);
        assert.is(await codeOf(engine.read(peer, one(id, 0, ours.id, 0, 16), { timeoutMs: 20_000 })), 'ERR_PEER');
        assert.is(await engine.probe(stock.name, { timeoutMs: 3000 }), false);
        // What it has left behind in the server would be there for ever.
        for (const key of server ? [`mooncake/rpc_meta/${stock.name}`, `mooncake/ram/${stock.name}`] : []) {
          await fetch(`${server!.url}?key=${encodeURIComponent(key)}`, { method: 'DELETE' });
        }
      }));
  }

  test(`${plane.name}: version 1 of the data stream, which descriptors without a version mean, each way`, () =>
    withPair(plane, 'HTTP', async ({ engine, stock, server }) => {
      const size = 5 * MIB + 3;
      const theirs = await stock.allocate(size);
      const ours = await engine.allocate(size);
      for (const name of [engine.name, stock.name]) {
        const url = `${server!.url}?key=${encodeURIComponent(`mooncake/ram/${name}`)}`;
        const descriptor = (await (await fetch(url)).text()).replace(/"tcp_proto_version": ?2,/, '');
        assert.not.match(descriptor, /tcp_proto_version/);
        // Ours must look like nothing but stock to be reached so.
        await fetch(url, { method: 'PUT', body: descriptor });
      }
      await stock.fill(theirs, size, 4);
      const peer = await engine.open(stock.name);
      const { id } = peer.segments[0];
      await engine.read(peer, one(id, 0, ours.id, 0, size));
      assert.is(digest(ours.memory), await stock.digest(theirs, size), 'we read');
      ours.memory.set(pattern(size, 12));
      await engine.write(peer, one(ours.id, 0, id, 0, size));
      assert.is(digest(ours.memory), await stock.digest(theirs, size), 'we write');
      await stock.fill(theirs, size, 5);
      assert.is((await stock.transfer('write', engine.name, theirs, Number(ours.address), size)).code, 0);
      // No acknowledgement: it is there when the next answer is.
      assert.is((await stock.transfer('read', engine.name, theirs, Number(ours.address), 1)).code, 0);
      let same = false;
      for (let tries = 0; !same && tries < 100; tries++) {
        same = digest(ours.memory) === (await stock.digest(theirs, size));
        if (!same) await new Promise((resolve) => setTimeout(resolve, 50));
      }
      assert.ok(same, 'it writes');
      ours.memory.set(pattern(size, 13));
      assert.is((await stock.transfer('read', engine.name, theirs, Number(ours.address), size)).code, 0);
      assert.is(digest(ours.memory), await stock.digest(theirs, size), 'it reads');
    }));
}

test('1 GiB, each way', () =>
  withPair(PLANES.at(-1)!, 'P2P', async ({ engine, stock }) => {
    const size = 2 ** 30;
    const theirs = await stock.allocate(size);
    const ours = await engine.allocate(size);
    await stock.fill(theirs, size, 1);
    const peer = await engine.open(stock.name);
    const { id } = peer.segments[0];
    await engine.read(peer, one(id, 0, ours.id, 0, size));
    const first = await stock.digest(theirs, size);
    assert.is(digest(ours.memory), first, 'we read');
    await stock.fill(theirs, size, 2);
    assert.is((await stock.transfer('read', engine.name, theirs, Number(ours.address), size)).code, 0);
    assert.is(await stock.digest(theirs, size), first, 'it reads');
    await stock.fill(theirs, size, 3);
    const second = await stock.digest(theirs, size);
    assert.is((await stock.transfer('write', engine.name, theirs, Number(ours.address), size)).code, 0);
    assert.is(digest(ours.memory), second, 'it writes');
    await stock.fill(theirs, size, 4);
    await engine.write(peer, one(ours.id, 0, id, 0, size));
    assert.is(await stock.digest(theirs, size), second, 'we write');
  }));

test('two stock engines find each other by our metadata server', async () => {
  const server = await MetadataServer.listen({ port: 0 });
  const [a, b] = [await Stock.start(server.url), await Stock.start(server.url)];
  try {
    const [ours, theirs] = [await a.allocate(MIB), await b.allocate(MIB)];
    await b.fill(theirs, MIB, 9);
    assert.is(await a.firstBuffer(b.name), theirs);
    assert.is((await a.transfer('read', b.name, ours, theirs, MIB)).code, 0);
    assert.is(await a.digest(ours, MIB), await b.digest(theirs, MIB));
  } finally {
    await Promise.all([a.end(), b.end()]);
    assert.equal(server.figures, { keys: 0, bytes: 0 });
    await server.close();
  }
});

test.run();
