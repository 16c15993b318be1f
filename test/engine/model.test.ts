// The model: against a textbook version without a cache, and against itself however the work is cut (bit for bit).
import { encode, type KvCache, Model } from 'mooncake-ts/reference-engine';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { naiveLogits } from './support/naive.js';
import { emptyCaches, logitsOf, model, SMALL, text } from './support/small.js';

const tokens = [...encode(text('a prompt', 99))];
const inOrder = (count: number) => Array.from({ length: count }, (_, i) => i);
const whole = logitsOf(tokens, { caches: emptyCaches(), blocks: inOrder(7) });

test('logits are those of the textbook model', () => {
  for (const prompt of ['', 'KV', text('another', 40), 'Grüße, 世界']) {
    const input = [...encode(prompt)];
    const naive = naiveLogits(model.config, 7, input);
    const ours = logitsOf(input, { caches: emptyCaches(), blocks: inOrder(7) });
    for (const [position, logits] of ours.entries()) {
      for (const [token, value] of logits.entries()) {
        const difference = Math.abs(value - naive[position][token]);
        assert.ok(difference < 1e-3, `${prompt}: position ${position}, token ${token} is ${difference} off`);
      }
    }
  }
});

test('one query head to a KV head, or three; an odd number of positions', () => {
  for (const heads of [2, 6]) {
    const of = new Model({ ...SMALL, heads, maxPositions: 43 }, 7);
    const input = tokens.slice(0, 43);
    const naive = naiveLogits(of.config, 7, input);
    const ours = logitsOf(input, { caches: emptyCaches({ of }), blocks: inOrder(3), of });
    for (const [position, logits] of ours.entries()) {
      for (const [token, value] of logits.entries()) {
        assert.ok(Math.abs(value - naive[position][token]) < 1e-3, `${heads} heads, position ${position}`);
      }
    }
    assert.equal(logitsOf(input, { caches: emptyCaches({ of }), blocks: inOrder(3), of, step: 1 }), ours);
  }
});

test('logits do not depend on how the prompt is cut', () => {
  for (const step of [1, 2, 7, 15, 16, 17, 33, 64, 99]) {
    assert.equal(logitsOf(tokens, { caches: emptyCaches(), blocks: inOrder(7), step }), whole, `${step} at a time`);
  }
});

test('logits do not depend on the tensor-parallel ranks, fewer than the KV heads or more', () => {
  for (const size of [2, 4]) {
    assert.equal(logitsOf(tokens, { caches: emptyCaches({ size }), blocks: inOrder(7) }), whole, `${size} ranks`);
  }
});

test('logits do not depend on which blocks hold the context, nor on their size', () => {
  assert.equal(logitsOf(tokens, { caches: emptyCaches(), blocks: [40, 3, 39, 63, 0, 17, 5] }), whole);
  const caches = emptyCaches({ blockSize: 5 });
  assert.equal(logitsOf(tokens, { caches, blocks: inOrder(20).reverse() }), whole);
});

test('logits depend on what is in the blocks, and on their order', () => {
  const blocks = inOrder(7);
  const [last, before] = [tokens.slice(-1), tokens.slice(0, -1)];
  const continued = (change: (cache: KvCache) => readonly number[]) => {
    const caches = emptyCaches();
    logitsOf(before, { caches, blocks });
    const rows = { tokens: last, positions: [before.length], blocks: [change(caches[0])] };
    const hidden = model.embed(rows);
    for (let layer = 0; layer < model.config.layers; layer++) model.layer(layer, rows, hidden, caches, 0, 1);
    return model.logits(hidden, 0).slice();
  };
  assert.equal(
    continued(() => blocks),
    whole.at(-1),
  );
  assert.not.equal(
    continued(() => [1, 0, ...blocks.slice(2)]),
    whole.at(-1),
  );
  for (const block of blocks) {
    const flipped = continued((cache) => {
      // The top byte of the first element of a value: a bit of its exponent.
      cache.memories[0][4 * (cache.at(1, block, 0) + SMALL.headDim) + 3] ^= 0x40;
      return blocks;
    });
    assert.not.equal(flipped, whole.at(-1), `a bit of block ${block}`);
  }
});

test('a model is its shape and its seed', () => {
  const same = new Model(SMALL, 7);
  assert.is(same.name, model.name);
  assert.equal(logitsOf(tokens, { caches: emptyCaches(), blocks: inOrder(7), of: same }), whole);
  const other = new Model(SMALL, 8);
  assert.is.not(other.name, model.name);
  assert.not.equal(logitsOf(tokens, { caches: emptyCaches(), blocks: inOrder(7), of: other }), whole);
});

test.run();
