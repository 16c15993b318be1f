/**
 * CRC-64/ECMA-182: in place in WASM memory, and from a JavaScript array with the copy counted; against the table form in
 * JavaScript and hash-wasm's CRC-64 (the same polynomial, reflected: the same work), whose copy counts too.
 *
 * Then the accelerator's, where it was built: its sum and its copy that sums, against the C library's memcpy between the same
 * memories, in turns; medians, or with --best the best, for a machine that others use meanwhile. In cache: one block over and
 * over. Out of cache: all of 512 MiB, which no cache holds, once in blocks of 1 MiB and once in one call (memcpy goes past the
 * caches itself there; reading alone and writing alone, which are the sum and a fill, say what the memory gives). Each call
 * crosses from JavaScript, which is what 4 KiB mostly measure: a batch of such blocks is in transfer-engine.bench.ts.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { createCRC64 } from 'hash-wasm';
import { crc64, crc64Into } from 'mooncake-ts';
import { median, missing, nanoseconds, report } from './support/report.js';

const MiB = 2 ** 20;
const SCRATCH = 0x20000;
const STATE = 0x11000;
const DATA = MiB;

const bytes = new Uint8Array(MiB).map((_, i) => Math.imul(i, 2654435761) >>> 13);

interface Exports {
  crc64Init(): void;
  crc64Update(crc: number, data: number, length: number, area: number): void;
}
const memory = new WebAssembly.Memory({ initial: 32, maximum: 65536 });
const wasm = readFileSync(fileURLToPath(import.meta.resolve('mooncake-ts/core.wasm')));
const core = new WebAssembly.Instance(new WebAssembly.Module(wasm), { env: { memory } }).exports as unknown as Exports;
core.crc64Init();
new Uint8Array(memory.buffer).set(bytes, DATA);

/** One table, a byte at a time, in 32-bit halves: what JavaScript does without BigInt in its loop. */
const table = new Uint32Array(512);
for (let byte = 0; byte < 256; byte++) {
  let value = BigInt(byte) << 56n;
  for (let bit = 0; bit < 8; bit++) value = BigInt.asUintN(64, value << 1n) ^ (value >> 63n ? 0x42f0e1eba9ea3693n : 0n);
  table[2 * byte] = Number(value >> 32n);
  table[2 * byte + 1] = Number(value & 0xffff_ffffn);
}
function tableForm(data: Uint8Array): bigint {
  let high = 0;
  let low = 0;
  for (let i = 0; i < data.length; i++) {
    const at = ((high >>> 24) ^ data[i]) << 1;
    high = ((high << 8) | (low >>> 24)) ^ table[at];
    low = (low << 8) ^ table[at + 1];
  }
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

if (tableForm(bytes) !== crc64(bytes)) throw new Error('the table form and crc64 disagree');

const hasher = await createCRC64();
const out = new Uint8Array(8);
for (const [label, size] of [
  ['1 MiB', MiB],
  ['64 KiB', 65536],
  ['4 KiB', 4096],
] as const) {
  const blocks = Array.from({ length: MiB / size }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
  const perSecond = (work: (block: Uint8Array, i: number) => void) => MiB / nanoseconds(() => blocks.forEach(work), 41);
  const js = perSecond(tableForm);
  const peer = perSecond((block) => hasher.init().update(block).digest('binary'));
  const place = perSecond((_, i) => core.crc64Update(STATE, DATA + i * size, size, SCRATCH));
  const array = perSecond((block) => crc64Into(block, out));
  report({ name: `crc64 in place, ${label}`, value: place, unit: 'GB/s', baseline: js, peer: 'table in JS' }, 'higher');
  report(
    { name: `crc64 of an array, ${label}`, value: array, unit: 'GB/s', baseline: peer, peer: 'hash-wasm' },
    'higher',
  );
}

interface Accelerator {
  crc64(view: Uint8Array, crc: bigint): bigint;
  copyCrc64(destination: Uint8Array, source: Uint8Array, crc: bigint, streaming?: boolean): bigint;
  copy(destination: Uint8Array, source: Uint8Array, streaming?: boolean): void;
  allocate(length: number): ArrayBuffer;
  readonly checksum: string;
}

const best = process.argv.includes('--best');

function accelerator(): Accelerator | string {
  try {
    const path = fileURLToPath(new URL('../native/mooncake.node', import.meta.resolve('mooncake-ts')));
    return createRequire(import.meta.url)(path) as Accelerator;
  } catch (error) {
    return (error as Error).message.split('\n')[0];
  }
}

/** GB/s of each way, over `size` bytes at a time until `span` bytes are done; in turns. */
function inTurns(
  ways: Record<string, (at: number) => void>,
  size: number,
  span: number,
  rounds: number,
): Map<string, number> {
  const times = new Map(Object.keys(ways).map((name) => [name, [] as number[]]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, way] of Object.entries(ways)) {
      const begin = process.hrtime.bigint();
      for (let at = 0; at < span; at += size) way(at);
      if (round >= 0) times.get(name)?.push(Number(process.hrtime.bigint() - begin));
    }
  }
  return new Map([...times].map(([name, taken]) => [name, span / (best ? Math.min(...taken) : median(taken))]));
}

function measure(native: Accelerator): void {
  const all = 512 * MiB;
  const source = new Uint8Array(native.allocate(all));
  const target = new Uint8Array(native.allocate(all));
  for (let at = 0; at < all; at += MiB) source.set(bytes, at);
  target.fill(1);
  const rows = (label: string, size: number, span: number, walk: boolean, rounds: number) => {
    const blocks = (memory: Uint8Array) =>
      Array.from({ length: walk ? span / size : 1 }, (_, i) => memory.subarray(i * size, (i + 1) * size));
    const [from, to] = [blocks(source), blocks(target)];
    const block = walk ? (at: number) => at / size : () => 0;
    const found = inTurns(
      {
        memcpy: (at) => native.copy(to[block(at)], from[block(at)], false),
        sum: (at) => native.crc64(from[block(at)], 0n),
        'copy and sum': (at) => native.copyCrc64(to[block(at)], from[block(at)], 0n, walk),
        copy: (at) => native.copy(to[block(at)], from[block(at)], walk),
        ...(walk && { fill: (at: number) => to[block(at)].fill(7) }),
      },
      size,
      span,
      rounds,
    );
    const baseline = found.get('memcpy') as number;
    for (const name of walk ? ['sum', 'copy and sum', 'copy', 'fill'] : ['sum', 'copy and sum']) {
      const value = found.get(name) as number;
      report(
        { name: `${native.checksum}: ${name}, ${label}`, value, unit: 'GB/s', baseline, peer: 'memcpy' },
        'higher',
      );
    }
  };
  for (const kib of [4, 64, 256, 1024]) rows(`${kib} KiB in cache`, kib * 1024, 16 * MiB, false, 41);
  rows('512 MiB by 1 MiB', MiB, all, true, 7);
  rows('512 MiB at once', all, all, true, 7);
}

const native = accelerator();
if (typeof native === 'string') missing('the accelerator', native);
else measure(native);
