// Peers whose memory is a GPU's, on one side or on both: beside a naive model, on the simulated driver, whose memory nobody can
// touch but by a copy.
import { LocalTransfer, type MooncakeError, TcpTransfer, type Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { failureOf } from '../support/failure-of.js';
import { gpuTest, SECOND_GPU } from '../support/gpu.js';
import { GpuOwner } from '../support/gpu-owner.js';

const MIB = 2 ** 20;

const MAKERS: Record<string, () => Promise<Transfer>> = {
  'within the process': async () => new LocalTransfer(),
  'over TCP': () => TcpTransfer.listen({ native: false }),
  'over TCP with the accelerator': () => TcpTransfer.listen(),
};

async function withPair(
  make: () => Promise<Transfer>,
  length: number,
  body: (a: Transfer, b: Transfer, gpus: [GpuOwner, GpuOwner]) => Promise<void>,
): Promise<void> {
  const [a, b] = [await make(), await make()];
  const gpus: [GpuOwner, GpuOwner] = [await GpuOwner.start(length), await GpuOwner.start(length, SECOND_GPU)];
  try {
    await body(a, b, gpus);
  } finally {
    await a.close();
    await b.close();
    await Promise.all(gpus.map((gpu) => gpu.close()));
  }
}

for (const [name, make] of Object.entries(MAKERS)) {
  gpuTest(test, `${name}: scattered blocks go between the GPUs of two peers, and to host memory`, () => {
    const block = 60_000;
    const count = 300; // 17 MiB: more windows than one move holds
    const length = block * count;
    return withPair(make, length, async (a, b, [ours, theirs]) => {
      const [first, second] = [pattern(length, 1), pattern(length, 2)];
      await ours.write(0, first);
      await theirs.write(0, second);
      const gpu = a.register(ours.memory);
      b.register(theirs.memory, { name: 'kv' });
      const host = b.register(new Uint8Array(length), { name: 'host' });
      const peer = await a.connect(b.address);
      const remote = await peer.segment('kv');
      assert.is(remote.length, length);
      const beside = await peer.segment('host');
      const reads = Array.from({ length: count }, (_, index) => ({
        sourceSegment: index % 3 === 0 ? beside.id : remote.id,
        destinationSegment: gpu,
        sourceOffset: index * block,
        destinationOffset: ((index * 7 + 1) % count) * block,
        length: block - 11,
      }));
      b.memory(host).set(pattern(length, 3));
      const read = await peer.read(descriptorsOf(reads));
      assert.is(read.bytes, (block - 11) * count);
      for (const { sourceSegment, sourceOffset, destinationOffset, length: size } of reads) {
        const source = sourceSegment === remote.id ? second : b.memory(host);
        first.set(source.subarray(sourceOffset, sourceOffset + size), destinationOffset);
      }
      assert.is(Buffer.compare(await ours.read(), first), 0, 'what was read');

      const writes = reads.map(({ sourceOffset, destinationOffset }) => ({
        sourceSegment: gpu,
        destinationSegment: remote.id,
        sourceOffset,
        destinationOffset,
        length: block,
      }));
      assert.is((await peer.write(descriptorsOf(writes))).bytes, length);
      for (const { sourceOffset, destinationOffset } of writes) {
        second.set(first.subarray(sourceOffset, sourceOffset + block), destinationOffset);
      }
      assert.is(Buffer.compare(await theirs.read(), second), 0, 'what was written');

      const copied = a.register(new Uint8Array(length));
      await a.copy(one(gpu, 5, copied, 0, length - 5));
      assert.is(Buffer.compare(a.memory(copied).subarray(0, length - 5), first.subarray(5)), 0, 'copied out');
      await a.copy(one(copied, 0, gpu, 0, length));
      await a.copy(one(gpu, 0, gpu, length / 2, 1000));
      first.set(a.memory(copied));
      first.copyWithin(length / 2, 0, 1000);
      assert.is(Buffer.compare(await ours.read(), first), 0, 'copied in, and within');
    });
  });

  gpuTest(test, `${name}: what peers may not do is refused, and nothing is left held`, () =>
    withPair(make, MIB, async (a, b, [, theirs]) => {
      const kept = pattern(MIB, 9);
      await theirs.write(0, kept);
      const readable = b.register(theirs.memory, { name: 'kv', access: 'read' });
      assert.throws(
        () => b.register(theirs.memory, { name: 'kv' }),
        (error: MooncakeError) => error.code === 'ERR_INVALID_ARGUMENT',
      );
      const host = a.register(new Uint8Array(MIB));
      const peer = await a.connect(b.address);
      const { id } = await peer.segment('kv');
      // More often than there are windows.
      for (let i = 0; i < 20; i++) {
        assert.is((await failureOf(() => peer.write(one(host, 0, id, 0, 100)))).code, 'ERR_SEGMENT');
        assert.is((await failureOf(() => peer.read(one(id, MIB - 50, host, 0, 51)))).code, 'ERR_SEGMENT');
        assert.is(
          (await failureOf(() => peer.call('transfer.devices', { op: 'release', window: i }))).code,
          'ERR_SEGMENT',
        );
      }
      assert.is(Buffer.compare(await theirs.read(), kept), 0);
      assert.is((await peer.read(one(id, 0, host, 0, MIB))).verifiedBytes, MIB);
      await b.unregister(readable);
      assert.is((await failureOf(() => peer.read(one(id, 0, host, 0, 1)))).code, 'ERR_SEGMENT');
    }),
  );
}

/** Peers of `of` that have all of its windows: two, as none has all alone. */
async function withGreedy(of: Transfer, work: (holders: [TcpTransfer, TcpTransfer]) => Promise<void>): Promise<void> {
  const holders: [TcpTransfer, TcpTransfer] = [
    await TcpTransfer.listen({ native: false }),
    await TcpTransfer.listen({ native: false }),
  ];
  try {
    for (const [i, windows] of [6, 2].entries()) {
      const holder = await holders[i].connect(of.address);
      for (let at = 0; at < windows; at++) await holder.call('transfer.devices', { op: 'take' });
    }
    await work(holders);
  } finally {
    for (const holder of holders) await holder.close();
  }
}

gpuTest(test, 'windows of a peer that is gone are free for others', () =>
  withPair(MAKERS['over TCP'], MIB, async (a, b, [, theirs]) => {
    b.register(theirs.memory, { name: 'kv' });
    await withGreedy(b, async ([, second]) => {
      const host = a.register(new Uint8Array(MIB));
      const peer = await a.connect(b.address);
      const { id } = await peer.segment('kv');
      const late = await failureOf(() => peer.read(one(id, 0, host, 0, MIB), { timeoutMs: 200 }));
      assert.is(late.code, 'ERR_TIMEOUT');
      const waiting = peer.read(one(id, 0, host, 0, MIB), { timeoutMs: 60_000 });
      await second.close();
      assert.is((await waiting).bytes, MIB);
    });
  }),
);

gpuTest(test, 'no peer has all windows: one that gives none back waits, and others do not', () =>
  withPair(MAKERS['over TCP'], MIB, async (a, b, [, theirs]) => {
    b.register(theirs.memory, { name: 'kv' });
    const greedy = await TcpTransfer.listen({ native: false });
    try {
      const holder = await greedy.connect(b.address);
      const take = (timeoutMs = 60_000) => holder.call('transfer.devices', { op: 'take' }, { timeoutMs });
      const taken: { window: number }[] = [];
      for (let i = 0; i < 6; i++) taken.push((await take()) as { window: number });
      assert.is((await failureOf(() => take(200))).code, 'ERR_TIMEOUT');
      const host = a.register(new Uint8Array(MIB));
      const peer = await a.connect(b.address);
      const { id } = await peer.segment('kv');
      assert.is((await peer.read(one(id, 0, host, 0, MIB), { timeoutMs: 60_000 })).bytes, MIB);
      // Given back, in every way, it may have another.
      for (const [at, op] of ['release', 'drop', 'release'].entries()) {
        const next = take();
        await holder.call('transfer.devices', { op, window: taken[at].window });
        await next;
      }
      assert.is((await failureOf(() => take(200))).code, 'ERR_TIMEOUT');
    } finally {
      await greedy.close();
    }
  }),
);

test.run();
