// A network that flips, holds back, swallows and cuts what passes: nothing wrong is ever taken for right.
import { MooncakeError, type Peer, TcpTransfer, type TcpTransferOptions } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { type Relay, type RelayOptions, startRelay } from '../support/relay.js';
import { rejects, sleep } from './support.js';

const MiB = 2 ** 20;
const SIZE = 4 * MiB;

interface Scene {
  a: TcpTransfer;
  b: TcpTransfer;
  relay: Relay;
  peer: Peer;
  ours: Uint8Array;
  theirs: Uint8Array;
  here: number;
  there: number;
  /** The first connection that b lost. */
  lost: Promise<MooncakeError>;
}

/** Two transfers with a relay between them. `onChunk` is asked once the connection stands. */
async function through(
  onChunk: NonNullable<RelayOptions['onChunk']>,
  work: (scene: Scene) => Promise<void>,
  options: TcpTransferOptions = {},
) {
  let onLost!: (reason: MooncakeError) => void;
  const lost = new Promise<MooncakeError>((resolve) => {
    onLost = resolve;
  });
  // By the connection alone, which passes through the relay.
  const a = await TcpTransfer.listen({ ...options, native: false });
  const b = await TcpTransfer.listen({ native: false, onLost });
  let faulty = false;
  const relay = await startRelay(Number(b.address.split(':').pop()), {
    onChunk: (...args) => (faulty ? onChunk(...args) : args[1]),
  });
  const [ours, theirs] = [new Uint8Array(SIZE), pattern(SIZE)];
  const [here, there] = [a.register(ours), b.register(theirs)];
  b.serve('echo', (message) => message);
  const peer = await a.connect(`tcp://127.0.0.1:${relay.port}`);
  faulty = true;
  try {
    await work({ a, b, relay, peer, ours, theirs, here, there, lost });
  } finally {
    await Promise.all([a.close(), b.close(), relay.close()]);
  }
}

const FLIPPED = ['ERR_CORRUPT', 'ERR_PROTOCOL', 'ERR_PEER', 'ERR_CLOSED'];

/** The promise must fail, in one of the ways that say so. */
async function detected(promise: Promise<unknown>, what: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.instance(error, MooncakeError, `${what}: resolved`);
  assert.ok(FLIPPED.includes((error as MooncakeError).code), `${what}: ${(error as MooncakeError).message}`);
}

test('one flipped bit anywhere in either direction: no move and no call resolves with wrong bytes', async () => {
  // Positions in the bytes that pass after the hello: preludes of requests, headers of pieces, data, ends.
  const early = Array.from({ length: 33 }, (_, i) => 3 * i);
  const positions = [...early, 200, 5000, 262_144 + 40, SIZE / 2, SIZE - 7, SIZE + 300];
  for (const [operation, direction] of [
    ['read', 'up'],
    ['read', 'down'],
    ['write', 'up'],
    ['write', 'down'],
    ['call', 'up'],
    ['call', 'down'],
  ] as const) {
    for (const position of positions) {
      let passed = 0;
      let flipped = false;
      const flip: RelayOptions['onChunk'] = (way, chunk) => {
        if (way !== direction) return chunk;
        if (position >= passed && position < passed + chunk.length) {
          chunk[position - passed] ^= 1 << (position % 8);
          flipped = true;
        }
        passed += chunk.length;
        return chunk;
      };
      await through(flip, async ({ peer, ours, theirs, here, there }) => {
        const what = `${operation}, byte ${position} ${direction}`;
        const limits = { timeoutMs: 5000 };
        const message = pattern(1000);
        if (operation === 'write') ours.set(pattern(SIZE, 5));
        const run = {
          read: () => peer.read(one(there, 0, here, 0, SIZE), limits),
          write: () => peer.write(one(here, 0, there, 0, SIZE), limits),
          call: () => peer.call('echo', message, limits),
        }[operation]();
        const outcome = await run.catch((error: unknown) => error);
        if (!flipped) {
          assert.not.instance(outcome, Error, `${what}: nothing was flipped`);
          return;
        }
        // A heartbeat may be what was hit, after the end: then the result is right, and checked to be so.
        if (outcome instanceof MooncakeError) await detected(Promise.reject(outcome), what);
        else if (operation === 'call') assert.equal(outcome, message, what);
        else assert.ok(Buffer.from(ours).equals(theirs), `${what}: resolved with wrong bytes`);
      });
    }
  }
});

test('flipped data of a verified move is ERR_CORRUPT, and the connection goes on', async () => {
  for (const operation of ['read', 'write'] as const) {
    let left = MiB;
    const data = operation === 'read' ? 'down' : 'up';
    const flip: RelayOptions['onChunk'] = (way, chunk) => {
      if (way !== data) return chunk;
      // Past the request: in the middle of the first pieces' data.
      if (left > 0 && left <= chunk.length) chunk[left - 1] ^= 0x10;
      left -= chunk.length;
      return chunk;
    };
    await through(flip, async ({ peer, ours, theirs, here, there }) => {
      const [source, from, target, to] = operation === 'read' ? [there, 0, here, 0] : [here, 0, there, 0];
      const batch = one(source, from, target, to, SIZE);
      await rejects(peer[operation](batch), 'ERR_CORRUPT', 'received bytes');
      await peer[operation](batch);
      assert.ok(Buffer.from(ours).equals(theirs), 'the next one is right');
      assert.is(await peer.call('echo', 1), 1);
    });
  }
});

test('without verification a flipped data byte arrives: the control of the tests above', async () => {
  let left = MiB;
  const flip: RelayOptions['onChunk'] = (way, chunk) => {
    if (way === 'down') {
      if (left > 0 && left <= chunk.length) chunk[left - 1] ^= 0x10;
      left -= chunk.length;
    }
    return chunk;
  };
  await through(flip, async ({ peer, ours, theirs, here, there }) => {
    const report = await peer.read(one(there, 0, here, 0, SIZE), { verify: 'off' });
    assert.is(report.verifiedBytes, 0);
    const wrong = ours.reduce((count, byte, i) => count + (byte === theirs[i] ? 0 : 1), 0);
    assert.is(wrong, 1);
  });
});

test('bytes cut into any chunks, and held back, arrive', async () => {
  const held: RelayOptions['onChunk'] = async (_way, chunk) => {
    if (Math.random() < 0.2) await sleep(5);
    return chunk;
  };
  await through(held, async ({ peer, ours, theirs, here, there }) => {
    await peer.read(one(there, 0, here, 0, SIZE));
    assert.ok(Buffer.from(ours).equals(theirs));
    ours.set(pattern(SIZE, 9));
    await peer.write(one(here, 0, there, 0, SIZE));
    assert.ok(Buffer.from(ours).equals(theirs));
  });
});

test('a black hole in either direction, or both, is noticed on both sides', async () => {
  for (const swallowed of [['up'], ['down'], ['up', 'down']]) {
    const hole: RelayOptions['onChunk'] = (way, chunk) => (swallowed.includes(way) ? null : chunk);
    await through(hole, async ({ peer, here, there, lost }) => {
      const call = rejects(peer.call('echo', 1), 'ERR_PEER');
      await Promise.all([call, rejects(peer.read(one(there, 0, here, 0, SIZE)), 'ERR_PEER')]);
      assert.is((await peer.closed).code, 'ERR_PEER');
      assert.is((await lost).code, 'ERR_PEER');
    });
  }
});

test('a connection cut in the middle ends everything with ERR_PEER; the next is as good as new', async () => {
  let relay: Relay | undefined;
  let passed = 0;
  const cut: RelayOptions['onChunk'] = (_way, chunk, connection) => {
    passed += chunk.length;
    if (connection === 0 && passed > MiB) relay!.cut();
    return chunk;
  };
  await through(cut, async ({ a, peer, relay: made, ours, theirs, here, there }) => {
    relay = made;
    await rejects(peer.read(one(there, 0, here, 0, SIZE)), 'ERR_PEER');
    const again = await a.connect(`tcp://127.0.0.1:${made.port}`);
    assert.is.not(again, peer);
    assert.is(again.generation, peer.generation);
    await again.read(one(there, 0, here, 0, SIZE));
    assert.ok(Buffer.from(ours).equals(theirs));
    assert.is(made.connections, 2);
  });
});

test('a write given up is acknowledged before it rejects', async () => {
  const stall: RelayOptions['onChunk'] = async (way, chunk) => {
    if (way === 'up') await sleep(10);
    return chunk;
  };
  await through(
    stall,
    async ({ peer, theirs, here, there }) => {
      theirs.fill(0);
      await rejects(peer.write(one(here, 0, there, 0, SIZE), { timeoutMs: 20 }), 'ERR_TIMEOUT');
      theirs.fill(9);
      assert.is(await peer.call('echo', 'all that was on its way has arrived'), 'all that was on its way has arrived');
      assert.ok(
        theirs.every((byte) => byte === 9),
        'bytes of a write that was given up arrived after its rejection',
      );
    },
    { deadAfterMs: 10_000 },
  );
});

test('small calls pass a large move', async () => {
  await through(
    (_way, chunk) => chunk,
    async ({ a, b, peer }) => {
      const size = 128 * MiB;
      const [here, there] = [a.register(new Uint8Array(size)), b.register(new Uint8Array(size))];
      let reading = true;
      const move = peer.read(one(there, 0, here, 0, size)).finally(() => {
        reading = false;
      });
      let calls = 0;
      while (reading) {
        await peer.call('echo', calls);
        calls++;
      }
      await move;
      assert.ok(calls > 5, `${calls} calls were answered while 128 MiB moved`);
    },
  );
});

test.run();
