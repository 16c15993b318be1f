// Reads and writes between memory of a GPU and a peer's: by way of pinned host memory, beside a naive model, on the simulated
// driver, whose memory nobody can touch but by a copy.
import { closeSync } from 'node:fs';
import { TransferEngine, type TransferEngineOptions } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { failureOf } from '../support/failure-of.js';
import { gpuTest, SECOND_GPU } from '../support/gpu.js';

const MIB = 2 ** 20;

async function withPair(
  options: TransferEngineOptions,
  body: (a: TransferEngine, b: TransferEngine) => Promise<void>,
): Promise<void> {
  const a = await TransferEngine.create({ timeoutMs: 60_000 });
  const b = await TransferEngine.create({ timeoutMs: 60_000, ...options });
  try {
    await body(a, b);
  } finally {
    await a.close();
    await b.close();
  }
}

/** Where a scattered block lies on the other side: every block once. */
const scattered = (index: number, count: number) => (index * 7 + 3) % count;

for (const [name, options] of Object.entries<TransferEngineOptions>({
  'over TCP': { transports: ['tcp'] },
  'by shared memory': { transports: ['shm'] },
  'with a peer without accelerator': { native: false },
})) {
  gpuTest(test, `${name}: blocks of a GPU are written to a peer and read back, in another order`, () =>
    withPair(options, async (a, b) => {
      const block = 64 * 1024;
      const count = 640; // 40 MiB: more than passes at once
      const length = block * count;
      const gpu = await a.allocateDevice('cuda:0', length);
      const host = await a.allocate(length);
      const theirs = await b.allocate(length);
      const peer = await a.open(b.name);
      const [remote] = peer.segments;
      host.memory.set(pattern(length, 3));
      await a.copy(one(host.id, 0, gpu.id, 0, length));
      // Some of the records name host memory: both kinds may be in one batch.
      const writes = Array.from({ length: count }, (_, index) => ({
        sourceSegment: index % 5 === 0 ? host.id : gpu.id,
        destinationSegment: remote.id,
        sourceOffset: index * block,
        destinationOffset: scattered(index, count) * block,
        length: block,
      }));
      const written = await a.write(peer, descriptorsOf(writes));
      assert.is(written.bytes, length);
      const expected = new Uint8Array(length);
      for (const { sourceOffset, destinationOffset } of writes) {
        expected.set(host.memory.subarray(sourceOffset, sourceOffset + block), destinationOffset);
      }
      assert.is(Buffer.compare(theirs.memory, expected), 0, 'what the peer has');

      theirs.memory.set(pattern(length, 4));
      // Cut where no window ends.
      const odd = block - 1000;
      const reads = Array.from({ length: count }, (_, index) => ({
        sourceSegment: remote.id,
        destinationSegment: gpu.id,
        sourceOffset: index * block + 300,
        destinationOffset: scattered(index, count) * block + 17,
        length: odd,
      }));
      const read = await a.read(peer, descriptorsOf(reads));
      assert.is(read.bytes, odd * count);
      const inGpu = host.memory.slice();
      for (const { sourceOffset, destinationOffset } of reads) {
        inGpu.set(theirs.memory.subarray(sourceOffset, sourceOffset + odd), destinationOffset);
      }
      await a.copy(one(gpu.id, 0, host.id, 0, length));
      assert.is(Buffer.compare(host.memory, inGpu), 0, 'what the GPU has');
    }),
  );
}

gpuTest(test, 'what passes through is verified as host memory is', () =>
  withPair({ transports: ['tcp'] }, async (a, b) => {
    const gpu = await a.allocateDevice(SECOND_GPU, 6 * MIB);
    await b.allocate(6 * MIB);
    const peer = await a.open(b.name);
    const all = one(gpu.id, 0, peer.segments[0].id, 0, 6 * MIB);
    assert.is((await a.write(peer, all)).verifiedBytes, 6 * MIB);
    assert.is((await a.write(peer, all, { verify: 'off' })).verifiedBytes, 0);
  }),
);

gpuTest(test, 'a record that leaves the memory is named, and nothing is moved', () =>
  withPair({ transports: ['tcp'] }, async (a, b) => {
    const gpu = await a.allocateDevice('cuda:0', MIB);
    const theirs = await b.allocate(MIB);
    theirs.memory.fill(5);
    const peer = await a.open(b.name);
    const record = { sourceSegment: gpu.id, destinationSegment: peer.segments[0].id, sourceOffset: 0 };
    const list = [
      { ...record, destinationOffset: 0, length: 1000 },
      { ...record, sourceOffset: MIB - 10, destinationOffset: 2000, length: 11 },
    ];
    const error = await failureOf(() => a.write(peer, descriptorsOf(list)));
    assert.is(error.code, 'ERR_SEGMENT');
    assert.match(error.message, /descriptors\[1\]\.sourceOffset/);
    assert.ok(theirs.memory.every((byte) => byte === 5));
    await a.unregister(gpu.id);
    const gone = await failureOf(() => a.write(peer, descriptorsOf(list.slice(0, 1))));
    assert.is(gone.code, 'ERR_SEGMENT');
  }),
);

gpuTest(test, 'cancelled moves and peers that are gone end with their errors, and the next move goes on', () =>
  withPair({ transports: ['tcp'] }, async (a, b) => {
    const length = 64 * MIB;
    const gpu = await a.allocateDevice('cuda:0', length);
    await b.allocate(length);
    const peer = await a.open(b.name);
    const all = one(gpu.id, 0, peer.segments[0].id, 0, length);
    const batch = a.submit('write', peer, all);
    batch.cancel();
    assert.is((await failureOf(() => batch.done)).code, 'ERR_ABORTED');
    const controller = new AbortController();
    const aborted = a.write(peer, all, { signal: controller.signal });
    controller.abort();
    assert.is((await failureOf(() => aborted)).code, 'ERR_ABORTED');
    assert.is((await a.write(peer, all)).bytes, length);
    await b.close();
    const lost = await failureOf(() => a.write(peer, all, { timeoutMs: 30_000 }));
    assert.ok(['ERR_PEER', 'ERR_TIMEOUT'].includes(lost.code), lost.message);
    // Windows were given back.
    const host = await a.allocate(MIB);
    assert.is((await a.copy(one(gpu.id, 0, host.id, 0, MIB))).bytes, MIB);
  }),
);

gpuTest(test, 'allocations of cuMemCreate that follow each other are registered as one', () =>
  withPair({}, async (a, b) => {
    const sizes = [2 * MIB, 4 * MIB];
    const [length, offset] = [5 * MIB, MIB / 2];
    const host = await a.allocate(6 * MIB);
    host.memory.set(pattern(6 * MIB, 11));
    const parts: { fd: number; size: number }[] = [];
    let at = 0;
    for (const size of sizes) {
      const part = await a.allocateDevice('cuda:0', size, { exportable: true });
      await a.copy(one(host.id, at, part.id, 0, size));
      parts.push(a.exportDescriptor(part.id, 'cuda-vmm-fd'));
      at += size;
    }
    for (const [wrong, argument] of [
      [{ parts: [], offset }, 'memory.parts'],
      [{ parts: [{ fd: -1, size: 1 }] }, 'memory.parts[0].fd'],
      [{ parts: [parts[0], { fd: parts[1].fd, size: 0 }] }, 'memory.parts[1].size'],
    ] as const) {
      const error = await failureOf(() => b.registerDevice({ device: 'cuda:0', length, ...wrong }));
      assert.is(error.code, 'ERR_INVALID_ARGUMENT');
      assert.is(error.argument, argument);
    }
    const beyond = await failureOf(() => b.registerDevice({ device: 'cuda:0', parts, offset, length: 6 * MIB }));
    assert.is(beyond.code, 'ERR_INVALID_ARGUMENT');
    const whole = await b.registerDevice({ device: 'cuda:0', parts, offset, length });
    for (const { fd } of parts) closeSync(fd);
    const back = await b.allocate(length);
    await b.copy(one(whole.id, 0, back.id, 0, length));
    assert.is(Buffer.compare(back.memory, host.memory.subarray(offset, offset + length)), 0);
    await b.unregister(whole.id);
  }),
);

test.run();
