// Transfer plans through the pool are those of planTransfer.
import { KvLayout, type KvLayoutOptions, type MooncakeError, planTransfer, WorkerPool } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rejection } from './support.js';

const HEAD = 128;

/** Rank `rank` of `size` of a model with 8 KV heads and 6 layers; its blocks lie [block, head, token] or [block, token, head]. */
function layoutOf(rank: number, size: number, tokensFirst: boolean, blocks = 512): KvLayoutOptions {
  const heads = 8 / size;
  const cell = 2 * HEAD;
  const block = 16 * heads * cell;
  const strides = tokensFirst
    ? { block, token: heads * cell, head: cell, layer: blocks * block }
    : { block, token: cell, head: 16 * cell, layer: blocks * block };
  const tensor = (segment: number) => ({
    dtype: 'bfloat16' as const,
    elements: HEAD,
    strides,
    at: { segment, offset: 0 },
  });
  return {
    segments: [1, 2].map((id) => ({ id, length: 6 * blocks * block })),
    groups: [
      {
        kind: 'full',
        layers: { from: 0, to: 6 },
        blockSize: 16,
        blocks,
        heads: 8,
        tensors: { k: tensor(1), v: tensor(2) },
      },
    ],
    tensorParallel: { rank, size },
  };
}

const ids = (count: number, step: number) => Uint32Array.from({ length: count }, (_, i) => (i * step) % 509);

for (const inline of ['always', 'never'] as const) {
  const test = suite(`plans, inline: ${inline}`);
  let pool: WorkerPool;
  test.before(() => {
    pool = new WorkerPool({ threads: 2, inline });
  });
  test.after(() => pool.close());

  test('between ranks of different sizes, whole, layer by layer and in every form of ids', async () => {
    for (const [sourceSize, size, tokensFirst] of [
      [1, 1, false],
      [2, 4, false],
      [4, 2, true],
    ] as const) {
      const source = new KvLayout(layoutOf(0, sourceSize, false));
      const destination = new KvLayout(layoutOf(0, size, tokensFirst));
      for (const layers of [undefined, [2], { from: 3, to: 5 }]) {
        const blocks = { sourceBlocks: ids(40, 7), destinationBlocks: Array.from(ids(40, 1)), layers };
        const expected = planTransfer(source, destination, blocks);
        const actual = await pool.plan(source, destination, blocks);
        assert.is(actual.count, expected.count);
        assert.is(Buffer.compare(actual.bytes, expected.bytes), 0);
      }
    }
  });

  test('a plan larger than a lane', async () => {
    const source = new KvLayout(layoutOf(0, 2, true));
    const destination = new KvLayout(layoutOf(0, 4, false));
    const blocks = { sourceBlocks: ids(500, 3), destinationBlocks: ids(500, 1) };
    const expected = planTransfer(source, destination, blocks);
    assert.ok(expected.bytes.length > 1 << 20);
    assert.is(Buffer.compare((await pool.plan(source, destination, blocks)).bytes, expected.bytes), 0);
  });

  test('more layouts than a worker keeps', async () => {
    const destination = new KvLayout(layoutOf(0, 1, false));
    const blocks = { sourceBlocks: [5, 6], destinationBlocks: [1, 2] };
    const layouts = Array.from({ length: 600 }, (_, i) => new KvLayout(layoutOf(0, 1, i % 2 === 0, 510 + i)));
    const plans = await Promise.all(layouts.map((source) => pool.plan(source, destination, blocks)));
    for (const [i, { bytes }] of plans.entries()) {
      assert.is(Buffer.compare(bytes, planTransfer(layouts[i], destination, blocks).bytes), 0);
    }
  });

  test('errors are those of planTransfer', async () => {
    const source = new KvLayout(layoutOf(0, 1, false));
    const good = { sourceBlocks: [1, 2], destinationBlocks: [1, 2] };
    for (const options of [
      { ...good, sourceBlocks: [1, 9999] },
      { ...good, destinationBlocks: [3, 3] },
      { ...good, sourceBlocks: [1, -5] },
      { ...good, sourceBlocks: 'x' },
      { ...good, sourceBlocks: new DataView(new ArrayBuffer(16), 4) },
      { ...good, sourceBlocks: { length: 'many' } },
      { ...good, sourceBlocks: Float64Array.of(1, 2) },
      { ...good, destinationBlocks: undefined },
      { ...good, group: 4 },
      { ...good, tokens: { from: -1 } },
      { ...good, layers: [1.5] },
      {},
    ] as unknown as (typeof good)[]) {
      let expected: MooncakeError | undefined;
      try {
        planTransfer(source, source, options);
      } catch (error) {
        expected = error as MooncakeError;
      }
      const error = await rejection(pool.plan(source, source, options));
      assert.ok(expected);
      for (const field of ['code', 'argument', 'message', 'value'] as const) {
        assert.equal(error[field], expected[field], `${JSON.stringify(options)}: ${field}`);
      }
    }
    for (const bad of [undefined, {}, 7]) {
      assert.is((await rejection(pool.plan(bad as never, source, good))).argument, 'source');
      assert.is((await rejection(pool.plan(source, bad as never, good))).argument, 'destination');
    }
    const other = layoutOf(0, 1, false);
    const mismatch = new KvLayout({ ...other, groups: [{ ...other.groups[0], layers: { from: 0, to: 5 }, heads: 4 }] });
    assert.is((await rejection(pool.plan(source, mismatch, good))).code, 'ERR_LAYOUT_MISMATCH');
  });

  test.run();
}
