// Whichever thread a call runs on, the answer is that of the same call of the core.
import { blockHashes, blockHashesBatch, WorkerPool } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, sameHashes, tokensOf } from './support.js';

for (const inline of ['auto', 'always', 'never'] as const) {
  const test = suite(`inline: ${inline}`);
  let pool: WorkerPool;
  test.before(() => {
    pool = new WorkerPool({ threads: 2, inline });
  });
  test.after(() => pool.close());

  test('a prompt hashes as on this thread, in every form of tokens and algorithm', async () => {
    const tokens = tokensOf(1, 1000);
    for (const algorithm of ['sha256', 'sha256_cbor', 'xxhash', 'xxhash_cbor'] as const) {
      const options = { blockSize: 16, algorithm, seed: '0' };
      const expected = blockHashes(tokens, options);
      const shared = new Uint32Array(new SharedArrayBuffer(4000));
      shared.set(tokens);
      for (const form of [tokens, Int32Array.from(tokens), Array.from(tokens), shared, tokens.subarray()]) {
        sameHashes(await pool.hash(form, options), expected);
      }
    }
  });

  test('parents and extra keys travel', async () => {
    const tokens = tokensOf(2, 64);
    const parent = blockHashes(tokensOf(3, 16), OPTIONS).bytes;
    const extraKeys = [['lora', 1n], null, [new Uint8Array([1, 2]), ['a', null]]];
    const options = { ...OPTIONS, parent, extraKeys };
    sameHashes(await pool.hash(tokens, options), blockHashes(tokens, options));
    sameHashes(
      await pool.hash(tokens, { ...OPTIONS, parent: Buffer.from(parent).toString('hex') }),
      blockHashes(tokens, { ...OPTIONS, parent }),
    );
  });

  test('a list of prompts comes back in order, whatever its pieces', async () => {
    const prompts = Array.from({ length: 300 }, (_, i) => {
      const tokens = tokensOf(i, (i * 37) % 1500);
      return i % 3 === 0 ? { tokens, extraKeys: tokens.length < 16 ? null : [[`salt ${i}`]] } : tokens;
    });
    const expected = blockHashesBatch(prompts, OPTIONS);
    const actual = await pool.hashBatch(prompts, OPTIONS);
    assert.is(actual.length, expected.length);
    for (const [i, hashes] of actual.entries()) sameHashes(hashes, expected[i]);
  });

  test('nothing in gives nothing out', async () => {
    assert.equal(await pool.hashBatch([], OPTIONS), []);
    assert.is((await pool.hash([], OPTIONS)).length, 0);
    assert.is((await pool.hash([1, 2, 3], OPTIONS)).length, 0);
    assert.equal(
      (await pool.hashBatch([[], [1]], OPTIONS)).map(({ length }) => length),
      [0, 0],
    );
  });

  test('inputs and answers larger than a lane travel with the message', async () => {
    const tokens = tokensOf(4, 1 << 20);
    sameHashes(await pool.hash(tokens, OPTIONS), blockHashes(tokens, OPTIONS));
    assert.is(tokens.length, 1 << 20);
  });

  test('answers are the caller’s own memory', async () => {
    const first = await pool.hash(tokensOf(5, 64), OPTIONS);
    const kept = first.bytes.slice();
    assert.instance(first.bytes.buffer, ArrayBuffer);
    await Promise.all(Array.from({ length: 32 }, (_, i) => pool.hash(tokensOf(i, 64), OPTIONS)));
    assert.is(Buffer.compare(first.bytes, kept), 0);
  });

  test('many calls at once all get their own answer', async () => {
    const lengths = Array.from({ length: 500 }, (_, i) => 16 * (1 + ((i * 7) % 60)));
    const answers = await Promise.all(lengths.map((length, i) => pool.hash(tokensOf(i, length), OPTIONS)));
    for (const [i, answer] of answers.entries()) sameHashes(answer, blockHashes(tokensOf(i, lengths[i]), OPTIONS));
  });

  test.run();
}

const choice = suite('the choice of thread');

choice('small calls stay on this thread, large ones go to workers', async () => {
  await using pool = new WorkerPool({ threads: 1 });
  for (let i = 0; i < 8; i++) await pool.hash(tokensOf(i, 16), OPTIONS);
  assert.is(pool.stats.inline, 8);
  await pool.hash(LONG, OPTIONS);
  assert.is(pool.stats.inline, 8);
  assert.is(pool.stats.completed, 9);
  assert.ok(pool.stats.nsPerUnit['hash:sha256_cbor'] > 0);
});

choice('always and never are obeyed', async () => {
  await using always = new WorkerPool({ threads: 1, inline: 'always' });
  await always.hash(tokensOf(1, 1 << 16), OPTIONS);
  assert.is(always.stats.inline, 1);
  await using never = new WorkerPool({ threads: 1, inline: 'never' });
  await never.hash(tokensOf(1, 16), OPTIONS);
  assert.is(never.stats.inline, 0);
});

choice.run();
