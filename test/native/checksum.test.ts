// The accelerator's sums, copies and memory as JavaScript calls them: against the WebAssembly core and plain copies, over every kind
// of buffer that a view may have.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import * as fc from 'fast-check';
import { crc64 } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';

interface Native {
  crc64(view: Uint8Array, crc: bigint): bigint;
  copyCrc64(destination: Uint8Array, source: Uint8Array, crc: bigint, streaming?: boolean): bigint;
  copy(destination: Uint8Array, source: Uint8Array, streaming?: boolean): void;
  allocate(length: number): ArrayBuffer;
  keepFreedMemory(bytes: number): boolean;
  adjustExternalMemory(change: number): number;
}

const require = createRequire(import.meta.url);
const MiB = 2 ** 20;
const test = suite('the accelerator, checksum');

function load(): Native | undefined {
  try {
    return require(join(dirname(require.resolve('mooncake-ts/package.json')), 'dist/native/mooncake.node'));
  } catch (error) {
    skip(test, 'sums and copies', (error as Error).message.split('\n')[0], 'build it: npm run build');
    return undefined;
  }
}

/** Views of `length` bytes that differ in what they lie in. */
const kinds: Record<string, (length: number) => Uint8Array> = {
  array: (length) => new Uint8Array(length),
  'a part': (length) => new Uint8Array(length + 13).subarray(11, 11 + length),
  Buffer: (length) => Buffer.alloc(length),
  shared: (length) => new Uint8Array(new SharedArrayBuffer(length)),
  WebAssembly: (length) => new Uint8Array(new WebAssembly.Memory({ initial: 32 }).buffer, 8, length),
};

const fill = (view: Uint8Array, seed: number) => {
  for (let i = 0; i < view.length; i++) view[i] = Math.imul(i + seed, 2654435761) >>> 13;
  return view;
};

const native = load();
if (native) {
  test('sums and copies are those of the core, over every kind of memory and length', () => {
    const kind = fc.constantFrom(...Object.keys(kinds));
    const length = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: MiB }));
    const property = fc.property(
      kind,
      kind,
      length,
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.option(fc.boolean(), { nil: undefined }),
      (from, to, size, crc, streaming) => {
        const source = fill(kinds[from](size), size);
        const target = kinds[to](size);
        const wanted = crc64(source.slice(), crc);
        assert.is(native.crc64(source, crc), wanted);
        assert.is(native.copyCrc64(target, source, crc, streaming), wanted);
        assert.is(Buffer.compare(target, source), 0);
        target.fill(0);
        native.copy(target, source, streaming);
        assert.is(Buffer.compare(target, source), 0);
      },
    );
    fc.assert(property, { numRuns: 60 });
  });

  test('views that overlap are copied as `set` copies them', () => {
    for (const [to, from] of [
      [0, 100],
      [100, 0],
      [5000, 5000],
      [1, 0],
    ]) {
      const wanted = fill(new Uint8Array(20_000), 1);
      const got = wanted.slice();
      const sum = crc64(wanted.slice(from, from + 10_000), 7n);
      wanted.set(wanted.subarray(from, from + 10_000), to);
      const again = got.slice();
      assert.is(native.copyCrc64(got.subarray(to, to + 10_000), got.subarray(from, from + 10_000), 7n), sum);
      assert.equal(got, wanted);
      native.copy(again.subarray(to, to + 10_000), again.subarray(from, from + 10_000));
      assert.equal(again, wanted);
    }
  });

  test('a detached view is empty; what is no view, no CRC, or of another length is a TypeError that says so', () => {
    const detached = new Uint8Array(8);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    assert.is(native.crc64(detached, 3n), 3n);
    const view = new Uint8Array(8);
    const wrong: [() => unknown, RegExp][] = [
      [() => native.crc64([] as never, 0n), /view must be a Uint8Array/],
      [() => native.crc64(new Uint16Array(8) as never, 0n), /view must be a Uint8Array/],
      [() => native.crc64(view, 0 as never), /crc must be a bigint/],
      [() => native.crc64(view, -1n), /crc must be a bigint/],
      [() => native.crc64(view, 2n ** 64n), /crc must be a bigint/],
      [() => (native.crc64 as unknown as () => void)(), /view must be a Uint8Array/],
      [() => native.copy(view, new Uint8Array(7)), /destination has 8 bytes, source 7/],
      [() => native.copyCrc64(view, null as never, 0n), /source must be a Uint8Array/],
      [() => native.copy(view, new Uint8Array(8), 1 as never), /streaming must be a boolean/],
    ];
    for (const [call, message] of wrong) {
      assert.throws(call, (error: Error) => error instanceof TypeError && message.test(error.message));
    }
  });

  test('memory that no engine owns is zeroed, and refused where it cannot be had', () => {
    const memory = new Uint8Array(native.allocate(3 * MiB + 1));
    assert.is(memory.length, 3 * MiB + 1);
    assert.ok(memory.every((byte) => byte === 0));
    fill(memory, 5);
    assert.is(native.crc64(memory, 0n), crc64(memory.slice()));
    for (const length of [0, -1, 1.5, 2 ** 47, 2 ** 60]) assert.throws(() => native.allocate(length), `${length}`);
  });

  test('the allocator can be told, but for C libraries other than glibc', () => {
    const glibc = (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header
      .glibcVersionRuntime;
    assert.is(native.keepFreedMemory(64 * MiB), glibc !== undefined);
  });

  test('the collector is told of memory outside its heap', () => {
    const before = native.adjustExternalMemory(0);
    assert.is(native.adjustExternalMemory(3 * MiB), before + 3 * MiB);
    assert.is(native.adjustExternalMemory(-3 * MiB), before);
    assert.throws(() => native.adjustExternalMemory('3' as unknown as number), /change/);
  });
}

test.run();
