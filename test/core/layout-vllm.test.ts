/** vLLM's tensors in the terms of KvLayout, and what moves between them: the examples of docs/layout.md. */
import { readFileSync } from 'node:fs';
import { fromTorch, KvLayout, planTransfer, TransferPlan } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const product = (shape: number[]) => shape.reduce((a, b) => a * b, 1);
/** Strides of a contiguous tensor, in elements, as torch gives them. */
const contiguous = (shape: number[]) => shape.map((_, axis) => product(shape.slice(axis + 1)));
const MiB = 1 << 20;

/** vLLM on CPU: every layer (blocks, heads, tokens, 2 * head size), one after the other in one storage. */
function cpu(rank = 0, size = 1, blockSize = 16) {
  const shape = [4, 64, 8 / size, blockSize, 2 * 128];
  return new KvLayout({
    segments: [{ id: 1, length: product(shape) * 2 }],
    tensorParallel: { rank, size },
    groups: [
      {
        kind: 'full',
        layers: [0, 1, 2, 3],
        heads: 8,
        ...fromTorch({
          axes: ['layer', 'block', 'head', 'token', 'keyValue'],
          shape,
          strides: contiguous(shape),
          dtype: 'bfloat16',
          at: { segment: 1, offset: 0 },
        }),
      },
    ],
  });
}

/** FlashAttention: every layer a tensor (2, blocks, tokens, heads, head size) of its own. */
function flash(rank = 0, size = 1) {
  const shape = [2, 64, 16, 8 / size, 128];
  return new KvLayout({
    segments: [0, 1, 2, 3].map((id) => ({ id, length: product(shape) * 2 })),
    tensorParallel: { rank, size },
    groups: [
      {
        kind: 'full',
        layers: { from: 0, to: 4 },
        heads: 8,
        ...fromTorch({
          axes: ['kv', 'block', 'token', 'head', 'element'],
          shape,
          strides: contiguous(shape),
          dtype: 'bfloat16',
          at: [0, 1, 2, 3].map((segment) => ({ segment, offset: 0 })),
        }),
      },
    ],
  });
}

/** FlashInfer: (blocks, 2, tokens, heads, head size), in memory with heads before tokens (HND). */
function flashInfer() {
  const shape = [64, 2, 16, 8, 128];
  const block = 2 * 16 * 8 * 128;
  return new KvLayout({
    segments: [{ id: 9, length: 4 * 64 * block * 2 }],
    groups: [
      {
        kind: 'full',
        layers: [0, 1, 2, 3],
        heads: 8,
        ...fromTorch({
          axes: ['block', 'kv', 'token', 'head', 'element'],
          shape,
          strides: [block, block / 2, 128, 16 * 128, 1],
          dtype: 'bfloat16',
          at: [0, 1, 2, 3].map((layer) => ({ segment: 9, offset: layer * 64 * block * 2 })),
        }),
      },
    ],
  });
}

test('same layout: a block of all heads is one run, and neighbouring blocks are one', () => {
  const plan = new TransferPlan(cpu(), cpu());
  const list = [...plan.describe({ sourceBlocks: [3, 4, 5, 9], destinationBlocks: [10, 11, 12, 1] })];
  const block = 8 * 16 * 2 * 128 * 2;
  const layer = 64 * block;
  assert.equal(
    list,
    [0, 1, 2, 3].flatMap((index) => [
      {
        sourceSegment: 1,
        destinationSegment: 1,
        sourceOffset: index * layer + 9 * block,
        destinationOffset: index * layer + block,
        length: block,
      },
      {
        sourceSegment: 1,
        destinationSegment: 1,
        sourceOffset: index * layer + 3 * block,
        destinationOffset: index * layer + 10 * block,
        length: 3 * block,
      },
    ]),
  );
});

test('runs merge in whatever order the blocks are listed', () => {
  const ids = Array.from({ length: 63 }, (_, index) => index + 1);
  const shuffled = ids.map((_, index) => ids[(index * 29) % 63]);
  for (const order of [ids, [...ids].reverse(), shuffled]) {
    assert.is(planTransfer(cpu(), cpu(), { sourceBlocks: order, destinationBlocks: order }).count, 4);
  }
  const all = [0, ...ids];
  assert.is(planTransfer(cpu(), cpu(), { sourceBlocks: all, destinationBlocks: all }).count, 1);
});

test('splitting heads: a run per block where heads come first, a run per token where tokens do', () => {
  const blocks = { sourceBlocks: [1, 2, 3], destinationBlocks: [4, 6, 8] };
  const heads = planTransfer(cpu(0, 1), cpu(1, 2), blocks);
  assert.is(heads.count, 4 * 3);
  assert.is(heads.at(0).length, 4 * 16 * 2 * 128 * 2);
  assert.is(heads.at(0).sourceOffset, 8 * 16 * 512 + 4 * 16 * 512);
  const tokens = planTransfer(flash(0, 1), flash(1, 2), blocks);
  assert.is(tokens.count, 4 * 2 * 3 * 16);
  assert.is(tokens.at(0).length, 4 * 128 * 2);
  // Joined again: rank 1 of 2 fills the upper heads.
  assert.is(planTransfer(flash(1, 2), flash(0, 1), blocks).count, tokens.count);
});

test('between backends: fused to separate keys and values, heads first to tokens first', () => {
  const blocks = { sourceBlocks: [1], destinationBlocks: [2] };
  assert.is(planTransfer(cpu(), flash(), blocks).count, 4 * 2 * 16 * 8);
  assert.is(planTransfer(cpu(), flashInfer(), blocks).count, 4 * 2 * 16 * 8);
  assert.is(planTransfer(flashInfer(), flashInfer(), blocks).count, 4);
  assert.is(planTransfer(flash(), flash(), blocks).count, 4 * 2);
});

test('layer by layer', () => {
  const blocks = { sourceBlocks: [5], destinationBlocks: [6] };
  for (let layer = 0; layer < 4; layer++) {
    const plan = new TransferPlan(flash(), flash(), { layers: { from: layer, to: layer + 1 } });
    assert.equal(plan.layers, [layer]);
    assert.equal(
      [...plan.describe(blocks)].map(({ sourceSegment }) => sourceSegment),
      [layer, layer],
    );
  }
});

test('a shorter destination block, and a last block that is not full', () => {
  const [wide, narrow] = [cpu(0, 1, 32), cpu(0, 1, 16)];
  const split = planTransfer(wide, narrow, { sourceBlocks: [1], destinationBlocks: [7, 8] });
  assert.is(split.totalBytes, 4 * 32 * 8 * 512);
  const part = planTransfer(wide, narrow, { sourceBlocks: [1], destinationBlocks: [7, 8], tokens: { to: 20 } });
  assert.is(part.totalBytes, 4 * 20 * 8 * 512);
});

test('MLA: one latent vector per token, the same on every rank', () => {
  const mla = (rank: number, size: number) => {
    const shape = [32, 64, 576];
    return new KvLayout({
      segments: [{ id: 0, length: 2 * MiB + 2 * product(shape) }],
      tensorParallel: { rank, size },
      groups: [
        {
          kind: 'mla',
          layers: [12],
          ...fromTorch({
            axes: ['block', 'token', 'element'],
            shape,
            strides: contiguous(shape),
            dtype: 'bfloat16',
            at: { segment: 0, offset: 2 * MiB },
          }),
        },
      ],
    });
  };
  const list = [...planTransfer(mla(3, 8), mla(1, 2), { sourceBlocks: [4, 5], destinationBlocks: [8, 9] })];
  assert.is(list.length, 1);
  assert.is(list[0].length, 2 * 64 * 576 * 2);
  assert.is(list[0].sourceOffset, 2 * MiB + 4 * 64 * 576 * 2);
});

test('fp8 with a scale per block and head', () => {
  const fp8 = (rank: number, size: number) => {
    const [blocks, heads] = [16, 8 / size];
    const shape = [2, blocks, 16, heads, 128];
    const data = fromTorch({
      axes: ['kv', 'block', 'token', 'head', 'element'],
      shape,
      strides: contiguous(shape),
      dtype: 'float8_e4m3fn',
      at: { segment: 0, offset: 0 },
    });
    const scales = fromTorch({
      axes: ['block', 'head', 'element'],
      shape: [blocks, heads, 1],
      strides: [heads, 1, 1],
      dtype: 'float32',
      at: { segment: 1, offset: 0 },
      name: 'kScale',
      blockSize: 16,
    });
    return new KvLayout({
      segments: [
        { id: 0, length: product(shape) },
        { id: 1, length: blocks * heads * 4 },
      ],
      tensorParallel: { rank, size },
      groups: [{ kind: 'full', layers: [0], heads: 8, ...data, tensors: { ...data.tensors, ...scales.tensors } }],
    });
  };
  const list = [...planTransfer(fp8(0, 1), fp8(1, 2), { sourceBlocks: [2], destinationBlocks: [3] })];
  assert.is(list.length, 2 * 16 + 1);
  assert.equal(list.at(-1), {
    sourceSegment: 1,
    destinationSegment: 1,
    sourceOffset: 2 * 8 * 4 + 4 * 4,
    destinationOffset: 3 * 4 * 4,
    length: 4 * 4,
  });
});

/** A hybrid model: full attention and a sliding window share pages, a Mamba layer keeps a row per block. */
function hybrid() {
  const page = 64 * 1024;
  const attention = (offset: number) =>
    fromTorch({
      axes: ['block', 'token', 'head', 'keyValue'],
      shape: [32, 16, 8, 256],
      strides: [page / 2, 8 * 256, 256, 1],
      dtype: 'bfloat16',
      at: { segment: 0, offset },
    });
  const state = fromTorch({
    axes: ['block', 'element'],
    shape: [32, 60000],
    strides: [page, 1],
    dtype: 'uint8',
    at: { segment: 0, offset: 0 },
    name: 'state',
    blockSize: 512,
  });
  return new KvLayout({
    segments: [{ id: 0, length: 32 * page }],
    groups: [
      { kind: 'full', layers: [0], heads: 8, ...attention(0) },
      { kind: 'sliding', window: 33, layers: [1], heads: 8, ...attention(0) },
      { kind: 'state', layers: [2], ...state },
    ],
  });
}

test('sliding windows and states skip the null block, where nothing is missed', () => {
  const layout = hybrid();
  const sliding = new TransferPlan(layout, layout, { group: 1 });
  // 64 tokens, window 33: the next token sees the last 32, so the first two blocks may be gone.
  assert.is(sliding.describe({ sourceBlocks: [0, 0, 5, 9], destinationBlocks: [0, 4, 6, 7] }).count, 2);
  assert.throws(
    () => sliding.describe({ sourceBlocks: [0, 0, 0, 9], destinationBlocks: [0, 4, 6, 7] }),
    /sourceBlocks\[2\]/,
  );
  const state = planTransfer(layout, layout, { group: 2, sourceBlocks: [0, 0, 3], destinationBlocks: [0, 0, 4] });
  assert.equal(
    [...state].map(({ sourceOffset, length }) => [sourceOffset, length]),
    [[3 * 64 * 1024, 60000]],
  );
  assert.throws(
    () => planTransfer(layout, layout, { group: 2, sourceBlocks: [0], destinationBlocks: [4] }),
    /sourceBlocks\[0\]/,
  );
});

interface Views {
  kind: 'full' | 'mla';
  /** Tensor-parallel size. */
  size: number;
  layout: string;
  bytes: number;
  shape: [number, number, number, number];
  views: { strides: number[]; offset: number }[];
  /** Of each layer's cells (block, head, token): positions of the first and the last element. */
  marks: number[][];
}

test('views that vLLM made, of every layout it has, to each other and over tensor-parallel sizes', () => {
  const file = new URL('../vectors/kv_views.json', import.meta.url);
  const { cases } = JSON.parse(readFileSync(file, 'utf8')) as { cases: Views[] };
  const layoutOf = ({ kind, size, bytes, shape, views }: Views, rank: number) => {
    const mla = kind === 'mla';
    const fields = fromTorch({
      // vLLM gives a latent vector one head, which is no axis of the cache.
      axes: mla ? ['block', 'single', 'token', 'element'] : ['block', 'head', 'token', 'keyValue'],
      shape,
      strides: views[0].strides,
      dtype: 'float32',
      at: views.map(({ offset }) => ({ segment: 0, offset: offset * 4 })),
    });
    return new KvLayout({
      segments: [{ id: 0, length: bytes }],
      tensorParallel: { rank, size },
      groups: [{ kind, layers: [0, 1, 2], ...fields, heads: mla ? undefined : 8 }],
    });
  };
  const [sourceBlocks, destinationBlocks] = [
    [4, 1, 2],
    [1, 2, 3],
  ];
  for (const from of cases) {
    for (const to of cases.filter(({ kind }) => kind === from.kind)) {
      const [[, theirs, tokens], ours] = [from.shape, to.shape[1]];
      const rank = to.size - 1;
      const destination = layoutOf(to, rank);
      const memory = new Int32Array(to.bytes / 4).fill(-1);
      for (let source = 0; source < from.size; source++) {
        for (const copy of planTransfer(layoutOf(from, source), destination, { sourceBlocks, destinationBlocks })) {
          for (let at = 0; at < copy.length; at += 4) {
            memory[(copy.destinationOffset + at) / 4] = (copy.sourceOffset + at) / 4 + source * 100_000;
          }
        }
      }
      let checked = 0;
      for (const [layer, marks] of to.marks.entries()) {
        for (const [index, block] of destinationBlocks.entries()) {
          for (let head = 0; head < ours; head++) {
            const model = rank * ours + head;
            const source = Math.floor(model / theirs);
            for (let token = 0; token < tokens; token++) {
              for (const end of [0, 1]) {
                const mark = marks[((block * ours + head) * tokens + token) * 2 + end];
                const cell = (sourceBlocks[index] * theirs + (model % theirs)) * tokens + token;
                if (memory[mark] === from.marks[layer][cell * 2 + end] + source * 100_000) checked++;
              }
            }
          }
        }
      }
      const name = `${from.layout}/${from.size} to ${to.layout}/${to.size}`;
      assert.is(checked, 3 * 3 * ours * tokens * 2, name);
      const touched = memory.filter((value) => value !== -1).length;
      assert.is(touched, 3 * 3 * ours * tokens * to.shape[3], name);
    }
  }
  assert.is(cases.length, 24);
});

test('a layout is what it was made from, whatever becomes of that object, and makes its equal', () => {
  const options = structuredClone(hybrid().toJSON()) as { tensorParallel: { rank: number; size: number } };
  options.tensorParallel = { rank: 0, size: 1 };
  const layout = new KvLayout(options as never);
  // The usual way to describe all ranks: one object, changed from rank to rank.
  options.tensorParallel.rank = 7;
  Object.assign(options, { segments: [], groups: [] });
  for (const copy of [layout.toJSON(), structuredClone(layout.toJSON()), JSON.parse(JSON.stringify(layout))]) {
    const other = new KvLayout(copy);
    assert.is(other.fingerprint(), hybrid().fingerprint());
    for (const group of [0, 1, 2]) {
      const blocks = { group, sourceBlocks: [3, 5], destinationBlocks: [4, 6] };
      assert.equal([...planTransfer(other, layout, blocks)], [...planTransfer(hybrid(), hybrid(), blocks)]);
    }
  }
});

test('the fingerprint says what must agree and nothing of where it lies', () => {
  assert.is(cpu().fingerprint(), flash().fingerprint());
  assert.is(flashInfer().fingerprint(), flash().fingerprint());
  assert.is.not(cpu(0, 2).fingerprint(), cpu(1, 2).fingerprint());
  assert.is.not(cpu(0, 1, 32).fingerprint(), cpu().fingerprint());
  assert.is(new KvLayout(JSON.parse(JSON.stringify(hybrid()))).fingerprint(), hybrid().fingerprint());
});

test.run();
