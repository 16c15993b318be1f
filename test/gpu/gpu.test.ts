// A real GPU: order between processes by events, memory of cuMemCreate by its descriptor, rows, sums. What the simulated driver
// cannot know. Needs an NVIDIA GPU; GPU_PYTHON names a Python with torch, GPU_OWNER its script (owner.py here).
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Descriptors, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const MIB = 1 << 20;
const DEADLINE = { timeoutMs: 60_000 };

interface Part {
  source: number;
  destination: number;
  from?: number;
  to?: number;
  length: number;
}

function parts(...list: Part[]): Descriptors {
  const bytes = new Uint8Array(32 * (list.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(list.length), true);
  list.forEach(({ source, destination, from = 0, to = 0, length }, index) => {
    const at = 32 * (index + 1);
    view.setUint32(at, source, true);
    view.setUint32(at + 4, destination, true);
    view.setBigUint64(at + 8, BigInt(from), true);
    view.setBigUint64(at + 16, BigInt(to), true);
    view.setBigUint64(at + 24, BigInt(length), true);
  });
  return new Descriptors(bytes);
}

/** Another process: lines of JSON each way. */
function talkTo(command: string, args: string[], fd?: number) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit', fd ?? 'ignore'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return {
    hear: async () => JSON.parse((await lines.next()).value),
    say: (text: string) => child.stdin!.write(`${text}\n`),
    end: () => child.stdin!.end(),
  };
}

const python = process.env.GPU_PYTHON ?? 'python3';
const owner = process.env.GPU_OWNER ?? fileURLToPath(new URL('owner.py', import.meta.url));

if (process.argv.includes('--mapper')) {
  // The other process of "memory of cuMemCreate": turns every byte over.
  const size = Number(process.argv[process.argv.indexOf('--mapper') + 1]);
  const engine = await TransferEngine.create();
  const gpu = await engine.registerDevice({ device: 'cuda:0', fd: 3, size, length: size });
  const host = await engine.allocate(size);
  await engine.copy(parts({ source: gpu.id, destination: host.id, length: size }), DEADLINE);
  for (let i = 0; i < size; i++) host.memory[i] ^= 255;
  await engine.copy(parts({ source: host.id, destination: gpu.id, length: size }), DEADLINE);
  process.stdout.write(`${JSON.stringify({ done: true })}\n`);
  await engine.close();
} else {
  test('a copy waits for what another process writes, and records what it has copied', async () => {
    const engine = await TransferEngine.create();
    const other = talkTo(python, [owner]);
    try {
      const { memory, event, length } = await other.hear();
      const handle = (text: string) => Buffer.from(text, 'hex');
      const gpu = await engine.registerDevice({ device: 'cuda:0', handle: handle(memory), length });
      const written = engine.openEvent('cuda:0', handle(event));
      const host = await engine.allocate(length);
      const save = parts({ source: gpu.id, destination: host.id, length });
      await engine.copy(save, DEADLINE);
      for (const value of [1, 2, 3]) {
        other.say(`write ${value}`);
        assert.is((await other.hear()).written, value);
        // The control: without the wait the copy comes before the slow kernel's end.
        await engine.copy(save, { ...DEADLINE, verify: 'off' });
        assert.is(host.memory[0], value - 1, 'the kernel is slow enough for the test to mean something');
        await engine.copy(save, { ...DEADLINE, verify: 'off', gpu: { waitFor: [written] } });
        assert.is(host.memory[0], value);
        assert.is(host.memory[length - 1], value);
      }
      host.memory.fill(9);
      const load = parts({ source: host.id, destination: gpu.id, length });
      const loading = engine.copy(load, { ...DEADLINE, gpu: { waitFor: [written], record: [written] } });
      await loading;
      other.say('read');
      assert.is((await other.hear()).read, 9);
      engine.closeEvent(written);
    } finally {
      other.end();
      await engine.close();
    }
  });

  test('memory of cuMemCreate is reached by its descriptor, from another process', async () => {
    const engine = await TransferEngine.create();
    try {
      const gpu = await engine.allocateDevice('cuda:0', 8 * MIB, { exportable: true });
      const host = await engine.allocate(8 * MIB);
      host.memory.forEach((_, i, all) => {
        all[i] = i * 31;
      });
      const expected = host.memory.map((byte) => byte ^ 255);
      await engine.copy(parts({ source: host.id, destination: gpu.id, length: 8 * MIB }), DEADLINE);
      const { fd, size, offset } = engine.exportDescriptor(gpu.id, 'cuda-vmm-fd');
      assert.is(offset, 0);
      const mapper = talkTo(process.execPath, [fileURLToPath(import.meta.url), '--mapper', `${size}`], fd);
      assert.ok((await mapper.hear()).done);
      closeSync(fd);
      await engine.copy(parts({ source: gpu.id, destination: host.id, length: 8 * MIB }), DEADLINE);
      assert.ok(Buffer.from(host.memory).equals(Buffer.from(expected)));
      try {
        const dmabuf = engine.exportDescriptor(gpu.id, 'dma-buf');
        closeSync(dmabuf.fd);
        console.log('dma-buf of', dmabuf.size, 'bytes');
      } catch (error) {
        console.log(String(error));
      }
      await engine.unregister(gpu.id);
    } finally {
      await engine.close();
    }
  });

  test('copies of any length and place are verified on the way, by every byte of them', async () => {
    const engine = await TransferEngine.create();
    try {
      const host = await engine.allocate(8 * MIB);
      const back = await engine.allocate(8 * MIB);
      const gpu = await engine.allocateDevice('cuda:0', 8 * MIB);
      host.memory.forEach((_, i, all) => {
        all[i] = (i * 2_654_435_761) >>> 13;
      });
      for (const [from, to, length] of [
        [0, 0, 8 * MIB],
        [16, 32, 65_536],
        [1, 2, 100_003],
        [8, 8, 17],
        [4, 0, 2048],
        [3, 7, 1],
      ]) {
        back.memory.fill(0);
        const there = { source: host.id, destination: gpu.id, from, to, length };
        const again = { source: gpu.id, destination: back.id, from: to, to: from, length };
        for (const move of [there, again]) {
          assert.is((await engine.copy(parts(move), DEADLINE)).verifiedBytes, length);
        }
        assert.ok(
          Buffer.from(host.memory.subarray(from, from + length)).equals(back.memory.subarray(from, from + length)),
        );
      }
    } finally {
      await engine.close();
    }
  });

  test('heads are split in one pass', async () => {
    const engine = await TransferEngine.create();
    try {
      const tokens = 4096;
      const host = await engine.allocate(tokens * 1024);
      const half = await engine.allocate(tokens * 512);
      const gpu = await engine.allocateDevice('cuda:0', tokens * 1024);
      host.memory.forEach((_, i, all) => {
        all[i] = (i * 2_654_435_761) >>> 11;
      });
      await engine.copy(parts({ source: host.id, destination: gpu.id, length: tokens * 1024 }), DEADLINE);
      const records = Array.from({ length: tokens / 16 }, (_, i) => ({
        source: gpu.id,
        destination: half.id,
        from: i * 16 * 1024 + 512,
        to: i * 16 * 512,
        length: 512,
      }));
      const rows = { count: 16, sourceStride: 1024, destinationStride: 512 };
      const { bytes } = await engine.copy(parts(...records), { ...DEADLINE, gpu: { rows } });
      assert.is(bytes, tokens * 512);
      for (let token = 0; token < tokens; token++) {
        const was = host.memory.subarray(token * 1024 + 512, (token + 1) * 1024);
        assert.ok(Buffer.from(was).equals(half.memory.subarray(token * 512, (token + 1) * 512)), `token ${token}`);
      }
    } finally {
      await engine.close();
    }
  });

  test.run();
}
