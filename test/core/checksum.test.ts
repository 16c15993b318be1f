// CRC-64/ECMA-182 against published check values, CRCs that liblzma computed, and a bit-by-bit reference.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import fc from 'fast-check';
import { Crc64, crc64, crc64Combine, crc64Into, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const ONES = 0xffff_ffff_ffff_ffffn;
const CHECK = new TextEncoder().encode('123456789');

/** Bytes of a linear congruential generator: the same in any language. */
function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, state = 1; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/** The CRC of every prefix, one bit at a time: entry n is that of the first n bytes. */
function reference(bytes: Uint8Array, crc = 0n): BigUint64Array {
  const all = new BigUint64Array(bytes.length + 1);
  let high = Number(crc >> 32n);
  let low = Number(crc & 0xffff_ffffn);
  all[0] = crc;
  for (let i = 0; i < bytes.length; i++) {
    high = (high ^ (bytes[i] << 24)) >>> 0;
    for (let bit = 0; bit < 8; bit++) {
      const out = high >>> 31;
      high = ((high << 1) | (low >>> 31)) >>> 0;
      low = (low << 1) >>> 0;
      if (out) {
        high = (high ^ 0x42f0e1eb) >>> 0;
        low = (low ^ 0xa9ea3693) >>> 0;
      }
    }
    all[i + 1] = (BigInt(high) << 32n) | BigInt(low);
  }
  return all;
}

function reversed(value: number, bits: number): number {
  let out = 0;
  for (let bit = 0; bit < bits; bit++) out |= ((value >>> bit) & 1) << (bits - 1 - bit);
  return out >>> 0;
}

const DATA = pattern(20_500);
const PREFIXES = reference(DATA);

test('check values of the catalogue: ECMA-182, and the two other CRCs of its polynomial, WE and XZ', () => {
  // reveng.sourceforge.io/crc-catalogue: CRC-64/ECMA-182, CRC-64/WE (init and final XOR all ones), CRC-64/XZ (reflected).
  assert.is(crc64(CHECK), 0x6c40df5f0b497347n);
  assert.is(crc64(CHECK, ONES) ^ ONES, 0x62ec59e3f1a4f00an);
  const mirrored = crc64(
    CHECK.map((byte) => reversed(byte, 8)),
    ONES,
  );
  const xz = (reversed(Number(mirrored & 0xffff_ffffn), 32) << 0) >>> 0;
  const value = ((BigInt(xz) << 32n) | BigInt(reversed(Number(mirrored >> 32n), 32))) ^ ONES;
  assert.is(value, 0x995dc9bbdf1939fan);
});

// From the CRC-64 that liblzma writes into an .xz file of the bit-reversed bytes, reversed again, without its final XOR:
// the CRC of `pattern(length)` that starts from all ones.
const LIBLZMA: [number, bigint][] = [
  [1, 0x852e5b9efbb29e1cn],
  [16, 0xdf120d09de34cad4n],
  [4096, 0xc11082ddf8aad533n],
  [8191, 0x474740be067a52c8n],
  [8192, 0x62dd8fc8bbf26f32n],
  [12288, 0x91d2775e8aadd1ban],
  [65537, 0xdc99a792a6aa8d8cn],
  [1000003, 0xb7d2f793f15d2e7bn],
];

test('values of liblzma', () => {
  for (const [length, value] of LIBLZMA) assert.is(crc64(pattern(length), ONES), value, `${length} bytes`);
});

test('100 MiB in pieces, against liblzma', () => {
  const piece = pattern(1 << 20);
  const sum = new Crc64().update(new Uint8Array(0));
  let crc = ONES;
  for (let i = 0; i < 100; i++) {
    crc = crc64(piece, crc);
    sum.update(piece);
  }
  assert.is(crc, 0x7302ac1c6d7bc03n);
  assert.is(sum.length, 100 << 20);
  // The same from CRCs alone: all ones shifted over the length, plus the CRC that starts from zero.
  assert.is(crc64Combine(ONES, sum.digest(), sum.length), crc);
});

test('every length to 20,500 bytes', () => {
  for (let length = 0; length <= DATA.length; length++) {
    if (crc64(DATA.subarray(0, length)) !== PREFIXES[length]) assert.unreachable(`${length} bytes`);
  }
});

test('around the fold, piece and window boundaries', () => {
  const long = pattern((1 << 20) + 40);
  const prefixes = reference(long);
  const marks = [4096, 8192, 12288, 16384, 3 * 16384, 65536, 262144, 2 * 262144, 1 << 20];
  for (const mark of marks) {
    for (let length = mark - 33; length <= mark + 33; length++) {
      if (crc64(long.subarray(0, length)) !== prefixes[length]) assert.unreachable(`${length} bytes`);
    }
    // The last 4 KiB are summed apart: steps of 128 bytes from 3,894 on.
    for (let length = mark + 3894 - 130; length <= mark + 3894 + 2 && length < long.length; length++) {
      if (crc64(long.subarray(0, length)) !== prefixes[length]) assert.unreachable(`${length} bytes`);
    }
  }
});

/** The exports that callers with bytes in linear memory use. */
interface Exports {
  crc64Init(): void;
  crc64(data: number, length: number, crc: bigint, area: number): bigint;
  crc64Update(crc: number, data: number, length: number, area: number): void;
  crc64Scratch(): number;
}

function instance(file: string, memory: WebAssembly.Memory): Exports {
  const bytes = readFileSync(createRequire(import.meta.url).resolve(`mooncake-ts/${file}`));
  const core = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
  const exports = core.exports as unknown as Exports;
  exports.crc64Init();
  return exports;
}

test('in place in linear memory, every alignment, with scratch at any address; nothing else is written', () => {
  const memory = new WebAssembly.Memory({ initial: 8, maximum: 65536 });
  const core = instance('core.wasm', memory);
  const u8 = new Uint8Array(memory.buffer);
  const area = 0x20000;
  const after = area + core.crc64Scratch() + 32;
  for (const length of [0, 1, 15, 16, 17, 4095, 8191, 8192, 8193, 12345, 20480]) {
    for (let align = 0; align < 32; align++) {
      const data = 0x40000 + align;
      u8.fill(0xa5, area, after);
      u8.set(DATA.subarray(0, length), data);
      assert.is(
        BigInt.asUintN(64, core.crc64(data, length, 0n, area + align)),
        PREFIXES[length],
        `${length} at ${align}`,
      );
      assert.equal(u8.subarray(data, data + length), DATA.subarray(0, length));
      assert.ok(
        u8.subarray(area, area + align).every((byte) => byte === 0xa5),
        'in front of the scratch',
      );
      assert.ok(
        u8.subarray(area + align + core.crc64Scratch(), after).every((byte) => byte === 0xa5),
        'behind the scratch',
      );
    }
  }
});

test('two instances of the shared build over one memory', () => {
  const memory = new WebAssembly.Memory({ initial: 8, maximum: 65536, shared: true });
  const u8 = new Uint8Array(memory.buffer);
  const first = instance('core.shared.wasm', memory);
  u8.set(DATA, 0x40000);
  assert.is(BigInt.asUintN(64, first.crc64(0x40000, 20000, 0n, 0x20000)), PREFIXES[20000]);
  const second = instance('core.shared.wasm', memory);
  const cells = new BigUint64Array(memory.buffer);
  for (let cut = 0; cut <= 20000; cut += 1999) {
    cells[0x11000 >> 3] = 0n;
    first.crc64Update(0x11000, 0x40000, cut, 0x20000);
    second.crc64Update(0x11000, 0x40000 + cut, 20000 - cut, 0x28000);
    assert.is(cells[0x11000 >> 3], PREFIXES[20000]);
  }
});

test('a CRC continues, and CRCs of parts combine', () => {
  const part = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(part, part, fc.bigInt({ min: 0n, max: ONES }), fc.nat(20_000), (a, b, start, cut) => {
      const both = new Uint8Array([...a, ...b]);
      const whole = reference(both, start)[both.length];
      assert.is(crc64(b, crc64(a, start)), whole);
      assert.is(crc64(both, start), whole);
      assert.is(crc64Combine(crc64(a, start), crc64(b), b.length), whole);
      const tail = crc64(DATA.subarray(cut, 20_000));
      assert.is(crc64Combine(PREFIXES[cut], tail, 20_000 - cut), PREFIXES[20_000]);
      assert.is(crc64(DATA.subarray(cut, 20_000), PREFIXES[cut]), PREFIXES[20_000]);
    }),
  );
  assert.is(crc64Combine(5n, 9n, 0), 5n ^ 9n);
});

test('Crc64 sums pieces, crc64Into writes the CRC least significant byte first', () => {
  const sum = new Crc64();
  const out = new Uint8Array(24).fill(0xee);
  for (let at = 0; at < 20_000; at += 777) {
    sum.update(DATA.subarray(at, Math.min(at + 777, 20_000)));
    assert.is(sum.digest(), PREFIXES[sum.length]);
    crc64Into(DATA.subarray(0, sum.length), out, 9);
    assert.is(new DataView(out.buffer).getBigUint64(9, true), PREFIXES[sum.length]);
  }
  assert.ok([...out.subarray(0, 9), ...out.subarray(17)].every((byte) => byte === 0xee));
  const whole = DATA.slice();
  assert.is(crc64(whole.buffer), PREFIXES[DATA.length], 'an ArrayBuffer');
  const shared = new Uint8Array(new SharedArrayBuffer(DATA.length));
  shared.set(DATA);
  assert.is(crc64(shared), PREFIXES[DATA.length], 'shared memory');
});

test('wrong arguments are named, and the next call is right', () => {
  const wrong = (argument: string, call: () => unknown) => {
    try {
      call();
    } catch (error) {
      assert.instance(error, MooncakeError);
      assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT');
      assert.is((error as MooncakeError).argument, argument);
      assert.is(crc64(CHECK), 0x6c40df5f0b497347n);
      return;
    }
    assert.unreachable(`${argument} was accepted`);
  };
  // What a transfer to a worker leaves behind must not pass for no bytes; nor may a proxy or an heir of an array.
  const gone = new Uint8Array(8);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  const strange = [gone, gone.buffer, new Proxy(new Uint8Array(8), {}), Object.create(Uint8Array.prototype)];
  for (const out of strange.filter((value) => value !== gone.buffer)) wrong('out', () => crc64Into(CHECK, out));
  for (const bytes of ['123', [1, 2], null, undefined, 5, new Uint16Array(2), {}, ...strange]) {
    wrong('bytes', () => crc64(bytes as never));
    wrong('bytes', () => crc64Into(bytes as never, new Uint8Array(8)));
    wrong('bytes', () => new Crc64().update(bytes as never));
  }
  for (const crc of [0, '0', null, -1n, ONES + 1n]) {
    wrong('crc', () => crc64(CHECK, crc as never));
    wrong('a', () => crc64Combine(crc as never, 0n, 1));
    wrong('b', () => crc64Combine(0n, crc as never, 1));
  }
  for (const length of [-1, 0.5, Number.NaN, 2 ** 53, '1', 1n]) {
    wrong('lengthB', () => crc64Combine(0n, 0n, length as never));
  }
  wrong('out', () => crc64Into(CHECK, new Uint8Array(7)));
  wrong('out', () => crc64Into(CHECK, [0, 0, 0, 0, 0, 0, 0, 0] as never));
  for (const at of [-1, 1, 0.5, Number.NaN]) wrong('at', () => crc64Into(CHECK, new Uint8Array(8), at));
});

test.run();
