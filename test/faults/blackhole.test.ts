// Networks in which packets vanish: a namespace behind a pair of veth devices, whose routes and links are taken away and
// come back.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { type EnginePeer, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { skip } from '../support/skip.js';
import { placed } from './bytes.js';
import { killAll, MIB, only, outcomes, start, started, withEngine } from './support.js';

const SIZE = 8 * MIB;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();
const planes = probe.accelerated ? [true, false] : [false];

function ip(...args: string[]): void {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

/** A namespace, and one address on each side, out of the networks for tests of devices (198.18.0.0/15, RFC 2544). */
class Namespace {
  readonly name = `mooncake-${randomBytes(4).toString('hex')}`;
  readonly outside = `mc${randomBytes(4).toString('hex')}`;
  readonly inside = 'inside';
  readonly #net = `198.18.${randomBytes(1)[0]}.`;
  readonly #host = randomBytes(1)[0] & 0xfc;
  readonly ours = `${this.#net}${this.#host + 1}`;
  readonly theirs = `${this.#net}${this.#host + 2}`;

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

/** The kernel remembers for a while that a neighbour was not there. */
async function reopened(engine: TransferEngine, name: string): Promise<EnginePeer> {
  for (let tries = 1; ; tries++) {
    try {
      return await engine.open(name, { timeoutMs: 5000 });
    } catch (error) {
      if (tries === 10) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

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
      withEngine({ transports: ['tcp'], native }, async (engine) => {
        const namespace = new Namespace();
        try {
          const child = await start({
            engine: { host: namespace.theirs, transports: ['tcp'], native },
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
          const limits = { timeoutMs: 6000 };
          const busy = started([
            traffic(() => engine.read(peer, one(from.id, 0, read.id, 0, SIZE), limits)),
            traffic(() => engine.write(peer, one(write.id, 0, to.id, 0, SIZE), limits)),
          ]);
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
          const again = await reopened(engine, child.name);
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

test.run();
