/**
 * CRC-64/ECMA-182: in place in WASM memory, and from a JavaScript array with the copy counted; against the table form in
 * JavaScript and hash-wasm's CRC-64 (the same polynomial, reflected: the same work), whose copy counts too.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createCRC64 } from 'hash-wasm';
import { crc64, crc64Into } from 'mooncake-ts';
import { nanoseconds, report } from './support/report.js';

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
