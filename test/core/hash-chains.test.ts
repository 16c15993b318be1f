import fc from 'fast-check';
import { type BlockHashes, blockHashes, blockHashesBatch, noneHash, sequenceHashes } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hex, naiveChain, ruled } from '../support/vectors.js';

const token = fc.oneof(
  fc.nat(30),
  fc.nat(300),
  fc.nat(70_000),
  fc.nat(151_936),
  fc.constantFrom(0, 23, 24, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1),
);
const salt = fc.oneof(fc.constant(null), fc.string({ maxLength: 4 }), fc.string({ minLength: 60, maxLength: 140 }));
const prompt = fc.record({
  tokens: fc.oneof(
    fc.array(token, { maxLength: 90 }),
    fc.array(token, { minLength: 60, maxLength: 400 }),
    // Short messages: one compression where the others take two or three.
    fc.array(fc.nat(20), { maxLength: 200 }),
  ),
  salts: fc.array(salt, { maxLength: 4 }),
});
const blockSize = fc.constantFrom(1, 2, 3, 4, 7, 16, 23, 24, 32, 100);

function saltKeys(salts: (string | null)[], blocks: number) {
  return salts.slice(0, blocks).map((text) => (text === null ? null : [['cache_salt', text]]));
}

test('batches of uneven prompts equal SHA-256 of each block by node:crypto', () => {
  fc.assert(
    fc.property(fc.array(prompt, { maxLength: 11 }), blockSize, (prompts, size) => {
      const none = noneHash('sha256_cbor', '0');
      const ours = blockHashesBatch(
        prompts.map(({ tokens, salts }) => ({ tokens, extraKeys: saltKeys(salts, Math.floor(tokens.length / size)) })),
        { blockSize: size, seed: '0' },
      );
      assert.equal(
        ours.map((hashes) => hashes.toHex()),
        prompts.map(({ tokens, salts }) => naiveChain(none, tokens, size, salts)),
      );
    }),
    { numRuns: 300 },
  );
});

test('one prompt equals node:crypto, from any kind of array', () => {
  fc.assert(
    fc.property(prompt, blockSize, ({ tokens, salts }, size) => {
      const extraKeys = saltKeys(salts, Math.floor(tokens.length / size));
      const expected = naiveChain(noneHash('sha256_cbor', '7'), tokens, size, salts);
      const options = { blockSize: size, seed: '7', extraKeys };
      assert.equal(blockHashes(tokens, options).toHex(), expected);
      assert.equal(blockHashes(Uint32Array.from(tokens), options).toHex(), expected);
      if (tokens.every((id) => id < 2 ** 31)) {
        assert.equal(blockHashes(Int32Array.from(tokens), options).toHex(), expected);
      }
    }),
  );
});

/** Equal, without printing a difference of megabytes. */
function same(ours: BlockHashes, expected: string[]): void {
  assert.is(ours.length, expected.length);
  assert.is(
    expected.findIndex((hash, i) => ours.hex(i) !== hash),
    -1,
    'the first block that differs',
  );
}

test('prompts longer than one chunk and batches longer than one call', () => {
  const rules = [
    [1, 2654435761, 151_936, 600_001],
    [5, 40503, 90_000, 16 * 5],
    [9, 2654435761, 151_936, 1_200_000],
    [2, 2654435761, 151_936, 300_000],
    [3, 2654435761, 151_936, 700_000],
  ];
  const prompts = rules.map((rule) => Int32Array.from(ruled(rule)));
  const none = noneHash();
  const expected = prompts.map((tokens) => naiveChain(none, tokens, 16));
  same(blockHashes(prompts[0], { blockSize: 16 }), expected[0]);
  const batch = blockHashesBatch(prompts, { blockSize: 16 });
  assert.is(batch.length, prompts.length);
  for (const [i, hashes] of batch.entries()) same(hashes, expected[i]);
});

test('extra keys of a long prompt stay with their blocks across chunks', () => {
  const tokens = Int32Array.from(ruled([1, 2654435761, 151_936, 300_000]));
  const salts = Array.from({ length: tokens.length / 16 }, (_, i) => (i % 3 === 0 ? `salt ${i}` : null));
  const extraKeys = saltKeys(salts, salts.length);
  same(blockHashes(tokens, { blockSize: 16, extraKeys }), naiveChain(noneHash(), tokens, 16, salts));
});

for (const algorithm of ['sha256', 'sha256_cbor', 'xxhash', 'xxhash_cbor'] as const) {
  test(`${algorithm}: a chain continues from its parent, given as bytes or hex`, () => {
    const tokens = ruled([1, 40503, 151_936, 160]);
    const whole = blockHashes(tokens, { blockSize: 16, algorithm, seed: '1' });
    const rest = { blockSize: 16, algorithm };
    for (const parent of [whole.at(3), whole.hex(3)]) {
      assert.equal(blockHashes(tokens.slice(64), { ...rest, parent }).toHex(), whole.toHex().slice(4));
      const [batch] = blockHashesBatch([{ tokens: tokens.slice(64), parent }], rest);
      assert.equal(batch.toHex(), whole.toHex().slice(4));
    }
  });
}

test('a prompt shorter than a block has no hash, an empty batch no answer', () => {
  assert.is(blockHashes([1, 2, 3], { blockSize: 4 }).length, 0);
  assert.is(blockHashes(new Int32Array(0), { blockSize: 16 }).bytes.length, 0);
  assert.equal(blockHashesBatch([], { blockSize: 4 }), []);
  assert.equal(
    blockHashesBatch([[1], [1, 2, 3, 4], []], { blockSize: 4 }).map((hashes) => hashes.length),
    [0, 1, 0],
  );
});

test('tokens in shared memory and at an odd offset are read where they are', () => {
  const shared = new Int32Array(new SharedArrayBuffer(4 * 33), 4);
  shared.set(ruled([1, 40503, 151_936, 32]));
  assert.equal(blockHashes(shared, { blockSize: 16 }).toHex(), naiveChain(noneHash(), shared, 16));
});

test('an element that hashes when it is read does not change the hashes of its list', () => {
  const plain = [10, 20, 30, 40, 50, 60];
  const other = new Uint32Array(200_000).fill(9);
  const lazy = Object.defineProperty([...plain], 3, {
    get() {
      blockHashes(other, { blockSize: 2 });
      return 40;
    },
  });
  const expected = naiveChain(noneHash(), plain, 2);
  assert.equal(blockHashes(lazy, { blockSize: 2 }).toHex(), expected);
  assert.equal(
    blockHashesBatch([plain, lazy], { blockSize: 2 }).map((hashes) => hashes.toHex()),
    [expected, expected],
  );
  const sequence = sequenceHashes(plain, { blockSize: 2 }).toHex();
  assert.equal(sequenceHashes(lazy, { blockSize: 2 }).toHex(), sequence);
});

test('a parent that changes after it was given is the parent as it was given', () => {
  const parent = new Uint8Array(32).fill(1);
  const extraKeys = Object.defineProperty([null], 0, {
    get() {
      parent.fill(2);
      return null;
    },
  });
  const expected = naiveChain(new Uint8Array(32).fill(1), [1, 2], 2);
  assert.equal(blockHashes([1, 2], { blockSize: 2, parent, extraKeys }).toHex(), expected);
});

test('results are copies: a later call does not change them', () => {
  const first = blockHashes([1, 2, 3, 4], { blockSize: 4 });
  const before = hex(first.bytes);
  blockHashes([5, 6, 7, 8], { blockSize: 4 });
  assert.is(hex(first.bytes), before);
});

test.run();
