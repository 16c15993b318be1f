/**
 * A KV cache in another process's GPU memory, in and out of a store and to and from a peer's host memory, beside the same from
 * host memory in the same run (the baseline). Blocks are 64 KiB, a layer's side by side as a paged cache has them; an object is a
 * block of 16 tokens in 36 layers, 2.25 MiB. Everything is verified; what was read back is compared with what was there.
 *
 * Needs an NVIDIA GPU, or the simulated driver to try it out (MOONCAKE_CUDA_LIBRARY).
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import {
  Descriptors,
  type DeviceMemory,
  Keys,
  LocalTransfer,
  MooncakeStore,
  OBJECTS,
  sharedMemory,
  TransferEngine,
} from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const DEVICE = 'cuda:0';
const BLOCK = 65_536;
const LAYERS = 36;
const OBJECT = BLOCK * LAYERS;
const TOKENS = [128, 1024, 2048];
const BLOCK_TOKENS = 16;
const ROUNDS = 5;
/** Saved from the first half, loaded into the second. */
const CACHE = 2 ** 30;
const HALF = CACHE / 2;
/** What is removed keeps its room for a while, being leased. */
const STORE = 8 * 2 ** 30;
const MOVED = 256 * 2 ** 20;

type Row = [source: number, at: number, destination: number, to: number];

function descriptorsOf(rows: readonly Row[], length = BLOCK): Descriptors {
  const bytes = new Uint8Array(32 * (rows.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(rows.length), true);
  for (const [i, [source, at, destination, to]] of rows.entries()) {
    const record = 32 * (i + 1);
    view.setUint32(record, source, true);
    view.setUint32(record + 4, destination, true);
    view.setBigUint64(record + 8, BigInt(at), true);
    view.setBigUint64(record + 16, BigInt(to), true);
    view.setBigUint64(record + 24, BigInt(length), true);
  }
  return new Descriptors(bytes);
}

/** The owner: has memory that is not all zero, and says how it is reached. */
async function own(): Promise<void> {
  const engine = await TransferEngine.create();
  const gpu = await engine.allocateDevice(DEVICE, CACHE);
  const host = await engine.allocate(HALF);
  new Uint32Array(host.memory.buffer, host.memory.byteOffset, HALF / 4).forEach((_, i, words) => {
    words[i] = Math.imul(i + 1, 0x9e37_79b1);
  });
  await engine.copy(descriptorsOf([[host.id, 0, gpu.id, 0]], HALF));
  const { handle, offset } = engine.exportDevice(gpu.id);
  process.stdout.write(`${JSON.stringify({ handle: Buffer.from(handle).toString('hex'), offset })}\n`);
  for await (const _ of createInterface({ input: process.stdin }));
  await engine.close();
}

/** GB/s of the median. */
const rate = (bytes: number, times: number[]) => bytes / median(times) / 1e6;

async function timed(times: number[], work: () => Promise<unknown>): Promise<void> {
  const started = performance.now();
  await work();
  times.push(performance.now() - started);
}

async function stored(memory: DeviceMemory): Promise<void> {
  const transfer = new LocalTransfer();
  const store = new MooncakeStore({ transfer, segments: STORE, populate: true });
  const host = transfer.register(sharedMemory(CACHE));
  const gpu = transfer.register(memory);
  await transfer.copy(descriptorsOf([[gpu, 0, host, 0]], HALF));
  for (const tokens of TOKENS) {
    const objects = tokens / BLOCK_TOKENS;
    const keys = Keys.from(Array.from({ length: objects }, (_, i) => `${tokens} ${i}`));
    const blocks = Array.from({ length: objects * LAYERS }, (_, n) => {
      const [object, layer] = [Math.floor(n / LAYERS), n % LAYERS];
      const place = (layer * objects + ((object * 7 + 3) % objects)) * BLOCK;
      return { space: object * OBJECT + layer * BLOCK, place };
    });
    const rates: Record<string, { put: number; get: number }> = {};
    for (const [name, segment] of Object.entries({ host, gpu })) {
      const [puts, gets]: [number[], number[]] = [[], []];
      const written = descriptorsOf(blocks.map(({ space, place }) => [segment, place, OBJECTS, space]));
      const read = descriptorsOf(blocks.map(({ space, place }) => [OBJECTS, space, segment, HALF + place]));
      for (let round = 0; round < ROUNDS; round++) {
        await store.batchRemove(keys, { force: true });
        await timed(puts, async () => {
          const batch = await store.openPut(keys, OBJECT, { stride: OBJECT });
          await batch.write(written);
          if ((await batch.commit()).some((status) => status !== 0)) throw new Error('a put failed');
        });
        await timed(gets, async () => {
          const batch = await store.openGet(keys, { stride: OBJECT });
          await batch.read(read);
          if ((await batch.finish()).some((status) => status !== 0)) throw new Error('a get failed');
        });
      }
      rates[name] = { put: rate(objects * OBJECT, puts), get: rate(objects * OBJECT, gets) };
    }
    const bytes = objects * OBJECT;
    const there = transfer.register(sharedMemory(bytes));
    await transfer.copy(descriptorsOf([[gpu, HALF, there, 0]], bytes));
    if (Buffer.compare(transfer.memory(there), transfer.memory(host).subarray(0, bytes)) !== 0) {
      throw new Error('what was got is not what was put');
    }
    await transfer.unregister(there);
    for (const call of ['put', 'get'] as const) {
      const name = `${tokens} tokens, ${call} ${call === 'put' ? 'from' : 'into'} a GPU`;
      const baseline = rates.host[call];
      report({ name, value: rates.gpu[call], unit: 'GB/s', baseline, peer: 'host memory' }, 'higher');
    }
  }
  await store.close();
  await transfer.close();
}

async function moved(transport: 'tcp' | 'shm', memory: DeviceMemory): Promise<void> {
  const a = await TransferEngine.create({ transports: ['cuda', transport] });
  const b = await TransferEngine.create({ transports: [transport] });
  const gpu = await a.registerDevice(memory);
  const host = await a.allocate(MOVED);
  const theirs = await b.allocate(MOVED);
  host.memory.fill(1);
  theirs.memory.fill(2);
  const peer = await a.open(b.name);
  const count = MOVED / BLOCK;
  const rates: Record<string, { write: number; read: number }> = {};
  for (const [name, id] of Object.entries({ host: host.id, gpu: gpu.id })) {
    const [writes, reads]: [number[], number[]] = [[], []];
    const there = Array.from({ length: count }, (_, n): Row => {
      return [id, n * BLOCK, peer.segments[0].id, ((n * 7) % count) * BLOCK];
    });
    const back = there.map(([source, at, destination, to]): Row => [destination, to, source, at]);
    for (let round = 0; round < ROUNDS; round++) {
      await timed(writes, () => a.write(peer, descriptorsOf(there)));
      await timed(reads, () => a.read(peer, descriptorsOf(back)));
    }
    rates[name] = { write: rate(MOVED, writes), read: rate(MOVED, reads) };
  }
  for (const call of ['write', 'read'] as const) {
    const name = `${transport}, ${call} ${call === 'write' ? 'from' : 'into'} a GPU`;
    const baseline = rates.host[call];
    report({ name, value: rates.gpu[call], unit: 'GB/s', baseline, peer: 'host memory' }, 'higher');
  }
  await a.close();
  await b.close();
}

async function main(): Promise<void> {
  const engine = await TransferEngine.create();
  const found = engine.statistics().transports.find(({ name }) => name === 'cuda');
  await engine.close();
  if (!found?.usable) return missing('GPU memory', found?.detail ?? 'the accelerator is not there');
  const owner = spawn(process.execPath, [fileURLToPath(import.meta.url), 'own'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    const { value } = await createInterface({ input: owner.stdout })[Symbol.asyncIterator]().next();
    const { handle, offset } = JSON.parse(value);
    const memory = { device: DEVICE, handle: new Uint8Array(Buffer.from(handle, 'hex')), offset, length: CACHE };
    await stored(memory);
    for (const transport of ['tcp', 'shm'] as const) await moved(transport, memory);
  } finally {
    owner.kill();
  }
}

await (process.argv[2] === 'own' ? own() : main());
