// What only sockets have: limits of frames and queues, heartbeats, addresses.
import { TcpTransfer, type TcpTransferOptions } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { startRelay } from '../support/relay.js';
import { rejects, sleep } from './support.js';

const MiB = 2 ** 20;

async function withPair(
  options: [TcpTransferOptions, TcpTransferOptions],
  work: (a: TcpTransfer, b: TcpTransfer) => Promise<void>,
): Promise<void> {
  const [a, b] = await Promise.all(options.map((given) => TcpTransfer.listen(given)));
  try {
    await work(a, b);
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}

test('a batch goes in parts that the peer takes, however small its frames', () =>
  withPair([{}, { maxFrameBytes: 65_536 }], async (a, b) => {
    const count = 5000;
    const [ours, theirs] = [new Uint8Array(count), pattern(count)];
    const [here, there] = [a.register(ours), b.register(theirs)];
    const peer = await a.connect(b.address);
    const records = (source: number, destination: number) =>
      descriptorsOf(
        Array.from({ length: count }, (_, i) => ({
          sourceSegment: source,
          destinationSegment: destination,
          sourceOffset: i,
          destinationOffset: i,
          length: 1,
        })),
      );
    await peer.read(records(there, here));
    assert.equal(ours, theirs);
    ours.set(pattern(count, 2));
    await peer.write(records(here, there));
    assert.equal(ours, theirs);
  }));

test('more requests or answers at once than a socket should hold: some are refused, the connection goes on', () =>
  withPair([{}, {}], async (a, b) => {
    const large = new Uint8Array(4 * MiB);
    b.serve('size', (message) => (message as Uint8Array).length);
    b.serve('large', () => large);
    const peer = await a.connect(b.address);
    for (const [service, message] of [
      ['size', large],
      ['large', null],
    ] as const) {
      const calls = await Promise.allSettled(Array.from({ length: 40 }, () => peer.call(service, message)));
      const codes = calls.map((call) => (call.status === 'fulfilled' ? 'answered' : call.reason.code));
      assert.equal([...new Set(codes)].sort(), ['ERR_QUEUE_FULL', 'answered']);
      assert.is(await peer.call('size', new Uint8Array(1)), 1);
    }
  }));

test('a move that begins behind large answers, which the peer reads late, gets its turn', async () => {
  const [a, b] = [await TcpTransfer.listen({ deadAfterMs: 20_000 }), await TcpTransfer.listen({ deadAfterMs: 20_000 })];
  const [ours, theirs] = [new Uint8Array(MiB), pattern(MiB)];
  const [here, there] = [a.register(ours), b.register(theirs)];
  b.serve('large', () => new Uint8Array(15 * MiB));
  let release!: () => void;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  let held = false;
  const relay = await startRelay(Number(b.address.split(':').pop()), {
    onChunk: async (way, chunk) => {
      if (way === 'down' && held) await released;
      return chunk;
    },
  });
  const peer = await a.connect(`tcp://127.0.0.1:${relay.port}`);
  held = true;
  const answers = Array.from({ length: 3 }, () => peer.call('large', null));
  await sleep(100);
  const read = peer.read(one(there, 0, here, 0, MiB), { timeoutMs: 10_000 });
  await sleep(100);
  release();
  await Promise.all([...answers, read]);
  assert.ok(Buffer.from(ours).equals(theirs));
  await Promise.all([a.close(), b.close(), relay.close()]);
});

test('the shortest heartbeat that may be asked for keeps a connection alive', () =>
  withPair(
    [
      { heartbeatMs: 10, deadAfterMs: 40 },
      { heartbeatMs: 10, deadAfterMs: 40 },
    ],
    async (a, b) => {
      const peer = await a.connect(b.address);
      assert.is(await Promise.race([peer.closed, sleep(1000).then(() => 'alive')]), 'alive');
    },
  ));

test('a host that no address can have is not advertised', async () => {
  for (const advertise of ['', 'a b', 'h:1', 'x'.repeat(5000), 'tcp://h']) {
    await rejects(TcpTransfer.listen({ advertise }), 'ERR_INVALID_ARGUMENT', 'options.advertise');
  }
  for (const [advertise, address] of [
    ['::1', 'tcp://[::1]:'],
    ['node-1.example', 'tcp://node-1.example:'],
  ]) {
    const transfer = await TcpTransfer.listen({ advertise });
    assert.ok(transfer.address.startsWith(address), transfer.address);
    await transfer.close();
  }
});

test.run();
