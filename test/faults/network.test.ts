// Networks that fail: packets that vanish (a network namespace behind a pair of veth devices, whose routes and links are
// taken away), a stream that hangs, one that ends half-way, readers and writers that are slow.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { type Direction, startRelay } from '../support/relay.js';
import { skip } from '../support/skip.js';
import { placed } from './bytes.js';
import { type Child, killAll, MIB, only, outcomes, settles, start, withEngine } from './support.js';

const SIZE = 8 * MIB;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();
const planes = probe.accelerated ? [true, false] : [false];

function ip(...args: string[]): void {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

/** A namespace with an address on each side, of a network that the documentation of others uses (RFC 5737). */
class Namespace {
  readonly name = `mooncake-${randomBytes(4).toString('hex')}`;
  readonly outside = `mc${randomBytes(4).toString('hex')}`;
  readonly inside = 'inside';
  readonly ours = '192.0.2.1';
  readonly theirs = '192.0.2.2';

  constructor() {
    ip('netns', 'add', this.name);
    try {
      ip('link', 'add', this.outside, 'type', 'veth', 'peer', 'name', this.inside, 'netns', this.name);
      ip('address', 'add', `${this.ours}/30`, 'dev', this.outside);
      ip('link', 'set', this.outside, 'up');
      this.within('address', 'add', `${this.theirs}/30`, 'dev', this.inside);
      this.within('link', 'set', this.inside, 'up');
      this.within('link', 'set', 'lo', 'up');
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  within(...args: string[]): void {
    ip('-n', this.name, ...args);
  }

  remove(): void {
    spawnSync('ip', ['link', 'delete', this.outside]);
    spawnSync('ip', ['netns', 'delete', this.name]);
  }
}

function whyNoNamespace(): string | undefined {
  try {
    new Namespace().remove();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const holes = [
  {
    how: 'its answers vanish',
    dig: (to: Namespace) => to.within('route', 'add', 'blackhole', `${to.ours}/32`),
    fill: (to: Namespace) => to.within('route', 'delete', 'blackhole', `${to.ours}/32`),
  },
  {
    how: 'its link goes down',
    dig: (to: Namespace) => to.within('link', 'set', to.inside, 'down'),
    fill: (to: Namespace) => to.within('link', 'set', to.inside, 'up'),
  },
];

const why = whyNoNamespace();
for (const native of planes) {
  const plane = native ? 'native' : 'TypeScript';
  for (const { how, dig, fill } of holes) {
    const title = `${plane}: a peer becomes a black hole, since ${how}`;
    if (why !== undefined) {
      skip(test, title, why, 'run as root with iproute2, where network namespaces are allowed');
      continue;
    }
    test(title, () =>
      withEngine({ native }, async (engine) => {
        const namespace = new Namespace();
        try {
          const child = await start({
            engine: { host: namespace.theirs, native },
            bytes: SIZE,
            within: ['ip', 'netns', 'exec', namespace.name],
          });
          const peer = await engine.open(child.name);
          const [from, to] = peer.segments;
          const [read, write] = [await engine.allocate(SIZE), await engine.register(placed(SIZE, 2))];
          await engine.read(peer, one(from.id, 0, read.id, 0, SIZE));
          let dug = false;
          const traffic = async (move: () => Promise<unknown>) => {
            for (;;) await move();
          };
          const limits = { timeoutMs: 20_000 };
          const busy = [
            traffic(() => engine.read(peer, one(from.id, 0, read.id, 0, SIZE), limits)),
            traffic(() => engine.write(peer, one(write.id, 0, to.id, 0, SIZE), limits)),
          ];
          for (const move of busy) move.catch(() => assert.ok(dug, 'failed before'));
          await new Promise((resolve) => setTimeout(resolve, 200));
          dig(namespace);
          dug = true;
          only(await outcomes('traffic into a black hole', busy), ['ERR_PEER', 'ERR_TIMEOUT'], how);
          const short = engine.read(peer, one(from.id, 0, read.id, 0, SIZE), { timeoutMs: 2000 });
          only(await outcomes('a read from a black hole', [short]), ['ERR_PEER', 'ERR_TIMEOUT'], how);
          const opening = engine.open(child.name, { timeoutMs: 2000 });
          only(await outcomes('opening a black hole', [opening]), ['ERR_PEER', 'ERR_TIMEOUT'], how);
          fill(namespace);
          read.memory.fill(0);
          const again = await engine.open(child.name, { timeoutMs: 30_000 });
          await engine.read(again, one(again.segments[0].id, 0, read.id, 0, SIZE));
          assert.is(Buffer.compare(read.memory, placed(SIZE, 1)), 0);
          await child.kill();
        } finally {
          namespace.remove();
        }
      }),
    );
  }
}

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
      const read = engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, SIZE), { timeoutMs: 15_000 });
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

/** Ends its own direction of every connection in the middle of a batch. */
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
        upstream.on('error', () => client.destroy());
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
      await new Promise((resolve) => server.close(resolve));
    }));
}

test.run();
