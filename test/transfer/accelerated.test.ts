// TcpTransfers whose bytes take the accelerator: that they do, and what happens where they cannot.
import { TcpTransfer, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { startRelay } from '../support/relay.js';
import { skip } from '../support/skip.js';
import { rejects, sleep } from './support.js';

const SIZE = 4 * 2 ** 20;

/** Bytes that crossed the one connection while `work` ran, in both directions. */
async function crossing(
  a: TcpTransfer,
  b: TcpTransfer,
  work: (address: string, crossed: () => number) => Promise<void>,
) {
  let bytes = 0;
  const relay = await startRelay(Number(new URL(b.address.replace('tcp', 'http')).port), {
    onChunk: (_, chunk) => {
      bytes += chunk.length;
      return chunk;
    },
  });
  try {
    await work(`tcp://127.0.0.1:${relay.port}`, () => bytes);
  } finally {
    await Promise.all([a.close(), b.close()]);
    await relay.close();
  }
}

const probe = await TransferEngine.create();
await probe.close();
if (!probe.accelerated) {
  skip(test, 'accelerated transfers', probe.why!, 'npm run build where a compiler is');
} else {
  test('moves take the engines, verified, and the connection carries requests alone', async () => {
    const [a, b] = [await TcpTransfer.listen({ native: true }), await TcpTransfer.listen({ native: true })];
    await crossing(a, b, async (address, crossed) => {
      const theirs = pattern(SIZE, 3);
      b.register(theirs, { name: 'kv' });
      const memory = new Uint8Array(SIZE);
      const ours = a.register(memory);
      const peer = await a.connect(address);
      const { id } = await peer.segment('kv');
      // The links come up and the segment's number is learnt meanwhile.
      let engines = false;
      for (let tries = 0; !engines && tries < 200; tries++) {
        const before = crossed();
        memory.fill(0);
        const report = await peer.read(one(id, 0, ours, 0, SIZE));
        assert.is(report.verifiedBytes, SIZE);
        assert.is(Buffer.compare(memory, theirs), 0);
        engines = crossed() - before < SIZE / 2;
        if (!engines) await sleep(20);
      }
      assert.ok(engines, 'the bytes never left the connection');
      const before = crossed();
      memory.fill(9);
      await peer.write(one(ours, 0, id, 0, SIZE));
      assert.ok(theirs.every((byte) => byte === 9));
      assert.ok(crossed() - before < SIZE / 2);
    });
  });

  test('a side without it, or memory that it cannot have: over the connection', async () => {
    const [a, b] = [await TcpTransfer.listen({ native: true }), await TcpTransfer.listen({ native: false })];
    await crossing(a, b, async (address, crossed) => {
      b.register(pattern(SIZE, 3), { name: 'kv' });
      const ours = a.register(new Uint8Array(SIZE));
      const peer = await a.connect(address);
      const { id } = await peer.segment('kv');
      await sleep(100);
      await peer.read(one(id, 0, ours, 0, SIZE));
      assert.ok(crossed() > SIZE);
      assert.is(Buffer.compare(a.memory(ours), pattern(SIZE, 3)), 0);
    });
    const [c, d] = [await TcpTransfer.listen({ native: true }), await TcpTransfer.listen({ native: true })];
    await crossing(c, d, async (address, crossed) => {
      const wasm = new WebAssembly.Memory({ initial: SIZE / 65_536, maximum: 2 * (SIZE / 65_536) });
      d.register(pattern(SIZE, 4), { name: 'kv' });
      const view = new Uint8Array(wasm.buffer);
      const ours = c.register(view);
      const peer = await c.connect(address);
      const { id } = await peer.segment('kv');
      await sleep(100);
      await peer.read(one(id, 0, ours, 0, SIZE));
      assert.ok(crossed() > SIZE);
      assert.is(Buffer.compare(view, pattern(SIZE, 4)), 0);
      wasm.grow(1);
      await rejects(peer.read(one(id, 0, ours, 0, 1)), 'ERR_SEGMENT');
    });
  });
}

test.run();
