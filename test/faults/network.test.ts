// Connections that fail: that are slow, hang, are cut, or end half-way. A relay between the two engines does it.
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { type Direction, startRelay } from '../support/relay.js';
import { placed } from './bytes.js';
import { type Child, killAll, MIB, only, outcomes, settles, start, withEngine } from './support.js';

const SIZE = 8 * MIB;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();
const planes = probe.accelerated ? [true, false] : [false];

type OnChunk = (
  direction: Direction,
  chunk: Buffer,
  connection: number,
) => Promise<Uint8Array | null> | Uint8Array | null;

/**
 * A child behind a relay, which also stands in the child's descriptor: ports are replaced in what passes until the
 * descriptor has, which is what comes first.
 */
async function behindRelay(native: boolean, onChunk: OnChunk, bytes = SIZE) {
  const child = await start({ engine: { transports: ['tcp'], native }, bytes });
  const port = child.name.split(':').pop()!;
  let own = '';
  const relay = await startRelay(Number(port), {
    onChunk(direction, chunk, connection) {
      const text = chunk.toString('latin1');
      if (direction === 'down' && text.includes('"mooncake_ts"')) {
        assert.is(own.length, port.length);
        return Buffer.from(text.replaceAll(port, own), 'latin1');
      }
      return onChunk(direction, chunk, connection);
    },
  });
  own = String(relay.port);
  return {
    child,
    relay,
    name: `127.0.0.1:${relay.port}`,
    async end() {
      await relay.close();
      await child.kill();
    },
  };
}

async function readAll(
  engine: TransferEngine,
  name: string,
  timeoutMs: number,
): Promise<{ code: string; right: boolean }> {
  const peer = await engine.open(name);
  const ours = await engine.allocate(SIZE);
  const [code] = await outcomes('a read', [
    engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE), { timeoutMs }),
  ]);
  const seen = ours.memory.slice();
  const right = Buffer.compare(seen, placed(SIZE, 1)) === 0;
  // Nothing arrives after the end.
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.is(Buffer.compare(ours.memory, seen), 0, 'bytes arrived after the batch had ended');
  await settles('unregistering', engine.unregister(ours.id));
  return { code, right };
}

for (const native of planes) {
  const plane = native ? 'native' : 'TypeScript';
  const options = { transports: ['tcp'], native };

  test(`${plane}: a slow network moves everything, or ends at the deadline`, () =>
    withEngine(options, async (engine) => {
      let delay = 1;
      const slow = await behindRelay(native, async (_, chunk) => {
        await new Promise((resolve) => setTimeout(resolve, delay));
        return chunk;
      });
      assert.equal(await readAll(engine, slow.name, 50_000), { code: 'moved', right: true });
      delay = 100;
      assert.equal(await readAll(engine, slow.name, 1500), { code: 'ERR_TIMEOUT', right: false });
      delay = 0;
      assert.equal(await readAll(engine, slow.name, 50_000), { code: 'moved', right: true });
      await slow.end();
    }));

  test(`${plane}: connections that are cut while they are in use`, () =>
    withEngine(options, async (engine) => {
      let cut = false;
      let passed = 0;
      const cutting = await behindRelay(native, (_, chunk) => {
        passed += chunk.length;
        if (cut && passed > SIZE / 2) {
          cut = false;
          setImmediate(() => cutting.relay.cut());
        }
        return chunk;
      });
      assert.equal(await readAll(engine, cutting.name, 20_000), { code: 'moved', right: true });
      passed = 0;
      cut = true;
      const { code, right } = await readAll(engine, cutting.name, 20_000);
      // Either it went over another connection, or it failed for that reason: never wrong bytes.
      only([code], ['moved', 'ERR_PEER'], 'a cut connection');
      assert.is(right, code === 'moved');
      assert.equal(await readAll(engine, cutting.name, 20_000), { code: 'moved', right: true });
      await cutting.end();
    }));

  test(`${plane}: connections over which nothing more comes`, () =>
    withEngine(options, async (engine) => {
      let silent = false;
      const hanging = await behindRelay(native, (direction, chunk) => (silent && direction === 'down' ? null : chunk));
      assert.equal(await readAll(engine, hanging.name, 20_000), { code: 'moved', right: true });
      const peer = await engine.open(hanging.name);
      const ours = await engine.allocate(SIZE);
      silent = true;
      const read = engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE), { timeoutMs: 6000 });
      only(await outcomes('a read of a silent peer', [read]), ['ERR_PEER', 'ERR_TIMEOUT'], 'a silent peer');
      silent = false;
      assert.equal(await readAll(engine, hanging.name, 20_000), { code: 'moved', right: true });
      await hanging.end();
    }));
}

if (probe.accelerated) {
  test('one of several connections hangs: the others carry what it had', () =>
    withEngine({ transports: ['tcp'], streams: 4 }, async (engine) => {
      let hang = -1;
      const hanging = await behindRelay(true, (direction, chunk, connection) => {
        // The first connection that carries much, from then on.
        if (hang === -2 && direction === 'down' && chunk.length > 10_000) hang = connection;
        return hang === connection ? null : chunk;
      });
      assert.equal(await readAll(engine, hanging.name, 20_000), { code: 'moved', right: true });
      hang = -2;
      assert.equal(await readAll(engine, hanging.name, 30_000), { code: 'moved', right: true });
      assert.ok(hang >= 0, 'no connection hung');
      await hanging.end();
    }));
}

for (const native of planes) {
  test(`${native ? 'native' : 'TypeScript'}: a peer that ends its half of the connection`, () =>
    withEngine({ transports: ['tcp'], native }, async (engine) => {
      const { createServer, connect } = await import('node:net');
      const child: Child = await start({ engine: { transports: ['tcp'], native }, bytes: SIZE });
      const port = child.name.split(':').pop()!;
      let budget = Number.POSITIVE_INFINITY;
      const server = createServer({ allowHalfOpen: true }, (client) => {
        const upstream = connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
        client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy());
        upstream.on('error', () => client.destroy()).on('end', () => client.end());
        client.pipe(upstream);
        upstream.on('data', (chunk: Buffer) => {
          if (client.writableEnded) return;
          budget -= chunk.length;
          const text = chunk.toString('latin1');
          client.write(text.includes('"mooncake_ts"') ? Buffer.from(text.replaceAll(port, own), 'latin1') : chunk);
          if (budget < 0) client.end();
        });
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const own = String((server.address() as { port: number }).port);
      const name = `127.0.0.1:${own}`;
      assert.equal(await readAll(engine, name, 20_000), { code: 'moved', right: true });
      budget = SIZE / 2;
      const { code, right } = await readAll(engine, name, 20_000).catch((error) => ({
        code: error.code,
        right: false,
      }));
      only([code], ['ERR_PEER', 'ERR_TIMEOUT'], 'a peer that ends its half');
      assert.is(right, false);
      budget = Number.POSITIVE_INFINITY;
      assert.equal(await readAll(engine, name, 20_000), { code: 'moved', right: true });
      await child.kill();
      await settles('closing the relay', new Promise((resolve) => server.close(resolve)));
    }));
}

test.run();
