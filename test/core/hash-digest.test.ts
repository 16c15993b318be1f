import { createHash } from 'node:crypto';
import { createXXHash3, createXXHash128, type IHasher } from 'hash-wasm';
import { digest, sequenceHashes } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hex, ruled } from '../support/vectors.js';

const data = Uint8Array.from({ length: 2200 }, (_, i) => Math.imul(i, 2654435761) >>> 13);
const seeds = [0n, 1n, 0x9abcdef012345678n, 2n ** 64n - 1n];

const oracle = (create: (low: number, high: number) => Promise<IHasher>, seed: bigint) =>
  create(Number(seed & 0xffffffffn), Number(seed >> 32n));

for (const seed of seeds) {
  test(`XXH3 of 64 and 128 bits of every length up to 2,200 equals hash-wasm, seed ${seed}`, async () => {
    const h64 = await oracle(createXXHash3, seed);
    const h128 = await oracle(createXXHash128, seed);
    for (let length = 0; length <= data.length; length++) {
      const bytes = data.subarray(0, length);
      assert.is(hex(digest('xxh3-64', bytes, seed)), h64.init().update(bytes).digest(), `64 bits, length ${length}`);
      assert.is(hex(digest('xxh3-128', bytes, seed)), h128.init().update(bytes).digest(), `128 bits, length ${length}`);
    }
  });
}

test('SHA-256 of every length up to 600 equals node:crypto', () => {
  for (let length = 0; length <= 600; length++) {
    const bytes = data.subarray(0, length);
    assert.is(hex(digest('sha256', bytes)), createHash('sha256').update(bytes).digest('hex'), `length ${length}`);
  }
});

test('a long input grows the memory', () => {
  const bytes = new Uint8Array(3_000_000).fill(7);
  assert.is(hex(digest('sha256', bytes)), createHash('sha256').update(bytes).digest('hex'));
});

/** seq[0] = local[0]; seq[i] = XXH3-64(seq[i-1] LE || local[i] LE, S), with hash-wasm. */
function naiveSequence(hasher: IHasher, tokens: number[], blockSize: number, parent?: Buffer): string[] {
  const hashes: string[] = [];
  for (let at = 0; at + blockSize <= tokens.length; at += blockSize) {
    const block = Buffer.alloc(4 * blockSize);
    for (let i = 0; i < blockSize; i++) block.writeUInt32LE(tokens[at + i], 4 * i);
    let hash = Buffer.from(hasher.init().update(block).digest('hex'), 'hex');
    if (parent) {
      const pair = Buffer.concat([Buffer.from(parent).reverse(), Buffer.from(hash).reverse()]);
      hash = Buffer.from(hasher.init().update(pair).digest('hex'), 'hex');
    }
    parent = hash;
    hashes.push(hash.toString('hex'));
  }
  return hashes;
}

test("Mooncake's sequence hashes equal hash-wasm for every block size, seed and parent", async () => {
  for (const seed of seeds) {
    const hasher = await oracle(createXXHash3, seed);
    for (const blockSize of [1, 2, 3, 4, 5, 16, 33, 60, 64, 100, 256, 512]) {
      const tokens = ruled([7, 2654435761, 2 ** 32, 4 * blockSize + 1]);
      const expected = naiveSequence(hasher, tokens, blockSize);
      assert.equal(sequenceHashes(tokens, { blockSize, seed }).toHex(), expected);
      const rest = tokens.slice(2 * blockSize);
      assert.equal(sequenceHashes(rest, { blockSize, seed, parent: expected[1] }).toHex(), expected.slice(2));
    }
  }
});

test('a sequence longer than one chunk', async () => {
  const tokens = ruled([7, 2654435761, 2 ** 32, 100_003]);
  const expected = naiveSequence(await createXXHash3(), tokens, 16);
  assert.equal(sequenceHashes(Uint32Array.from(tokens), { blockSize: 16 }).toHex(), expected);
});

test('sequence hashes read as numbers', async () => {
  const hasher = await createXXHash3();
  const hashes = sequenceHashes(Int32Array.of(1, 2, 3, 4), { blockSize: 2 });
  assert.is(hashes.width, 8);
  assert.is(hashes.events()[0], BigInt(`0x${naiveSequence(hasher, [1, 2], 2)[0]}`));
});

test.run();
