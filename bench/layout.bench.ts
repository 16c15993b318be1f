/**
 * Descriptors per second, one thread, for prompts of 4,096 tokens (256 blocks of 16) in a cache of 80 layers with 8 KV
 * heads of 128 bf16 elements; against a JavaScript loop, written by hand for each case, that fills the same array.
 *
 * - blocks: one rank to its equal, one 64 KiB run per block and layer, no two blocks adjacent;
 * - runs of eight: the same with adjacent blocks, which both merge: runs per second before merging;
 * - heads: four ranks to eight, heads first in a block: one run per block and layer;
 * - tokens: four ranks to eight, tokens first: a run of 256 bytes for keys and values of every token, the worst case.
 */
import { type Descriptors, KvLayout, TransferPlan } from 'mooncake-ts';
import { median, nanoseconds, report } from './support/report.js';

const [LAYERS, HEADS, TOKENS, ELEMENTS, BLOCKS, LISTED] = [80, 8, 16, 128, 10_000, 256];
const ITEM = 2;
const RECORD_WORDS = 8;

interface Side {
  layout: KvLayout;
  layer: number;
  block: number;
  token: number;
  head: number;
  /** Bytes from a key to its value. */
  value: number;
}

/** tokens first: (block, 2, token, head, element); heads first: (block, head, token, key and value). */
function side(rank: number, size: number, tokensFirst: boolean): Side {
  const heads = HEADS / size;
  const cell = ELEMENTS * ITEM;
  const block = 2 * TOKENS * heads * cell;
  const layer = BLOCKS * block;
  const [token, head, value] = tokensFirst
    ? [heads * cell, cell, TOKENS * heads * cell]
    : [2 * cell, TOKENS * 2 * cell, cell];
  const strides = { block, token, head, layer };
  const layout = new KvLayout({
    segments: [{ id: 1, length: LAYERS * layer }],
    tensorParallel: { rank, size },
    groups: [
      {
        kind: 'full',
        layers: { from: 0, to: LAYERS },
        blockSize: TOKENS,
        blocks: BLOCKS,
        heads: HEADS,
        tensors: {
          k: { dtype: 'bfloat16', elements: ELEMENTS, strides, at: { segment: 1, offset: 0 } },
          v: { dtype: 'bfloat16', elements: ELEMENTS, strides, at: { segment: 1, offset: value } },
        },
      },
    ],
  });
  return { layout, layer, block, token, head, value };
}

/** Writes one record as two u32 words per u64, the fastest that JavaScript offers. */
function put(out: Uint32Array, at: number, source: number, destination: number, length: number): void {
  out[at] = 1;
  out[at + 1] = 1;
  out[at + 2] = source >>> 0;
  out[at + 3] = source / 0x1_0000_0000;
  out[at + 4] = destination >>> 0;
  out[at + 5] = destination / 0x1_0000_0000;
  out[at + 6] = length;
  out[at + 7] = 0;
}

type Loop = (from: Side, to: Side, source: Uint32Array, destination: Uint32Array, count: number) => Uint32Array;

/** One run of `length` bytes per block and layer; runs that touch are merged. */
const perBlock =
  (length: number, shift: number): Loop =>
  (from, to, source, destination, count) => {
    const out = new Uint32Array(count * RECORD_WORDS);
    let at = 0;
    let [sourceEnd, destinationEnd] = [-1, -1];
    for (let layer = 0; layer < LAYERS; layer++) {
      for (let index = 0; index < source.length; index++) {
        const a = layer * from.layer + source[index] * from.block + shift;
        const b = layer * to.layer + destination[index] * to.block;
        if (a === sourceEnd && b === destinationEnd) {
          out[at - 2] += length;
        } else {
          put(out, at, a, b, length);
          at += RECORD_WORDS;
        }
        sourceEnd = a + length;
        destinationEnd = b + length;
      }
    }
    return out;
  };

/** One run of `length` bytes for the key and for the value of every token. */
const perToken =
  (length: number, shift: number): Loop =>
  (from, to, source, destination, count) => {
    const out = new Uint32Array(count * RECORD_WORDS);
    let at = 0;
    for (let layer = 0; layer < LAYERS; layer++) {
      for (let part = 0; part < 2; part++) {
        for (let index = 0; index < source.length; index++) {
          let a = layer * from.layer + source[index] * from.block + part * from.value + shift;
          let b = layer * to.layer + destination[index] * to.block + part * to.value;
          for (let token = 0; token < TOKENS; token++) {
            put(out, at, a, b, length);
            at += RECORD_WORDS;
            a += from.token;
            b += to.token;
          }
        }
      }
    }
    return out;
  };

/** Order-independent sum over the records, to see that both wrote the same. */
function digest(words: Uint32Array): number {
  let sum = 0;
  for (let at = 0; at < words.length; at += RECORD_WORDS) {
    let mixed = 17;
    for (let word = 0; word < RECORD_WORDS; word++) mixed = Math.imul(mixed ^ words[at + word], 0x9e3779b1);
    sum = (sum + mixed) >>> 0;
  }
  return sum;
}

const words = ({ records }: Descriptors) => new Uint32Array(records.buffer, records.byteOffset, records.byteLength / 4);

function measure(name: string, from: Side, to: Side, ids: (index: number) => number, loop: Loop): void {
  const source = Uint32Array.from({ length: LISTED }, (_, index) => ids(index));
  const destination = source.map((id) => id + 8);
  const plan = new TransferPlan(from.layout, to.layout);
  const blocks = { sourceBlocks: source, destinationBlocks: destination };
  const { count } = plan.describe(blocks);
  const runs = Math.max(count, LAYERS * LISTED);
  if (digest(words(plan.describe(blocks))) !== digest(loop(from, to, source, destination, count))) {
    throw new Error(`${name}: the loop and the plan differ`);
  }
  // Interleaved, and long enough for the optimizing compilers, which work in the background.
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = -20; round < 40; round++) {
    const start = process.hrtime.bigint();
    plan.describe(blocks);
    const middle = process.hrtime.bigint();
    loop(from, to, source, destination, count);
    if (round < 0) continue;
    theirs.push(Number(process.hrtime.bigint() - middle));
    ours.push(Number(middle - start));
  }
  const rate = (times: number[]) => (runs / median(times)) * 1000;
  report(
    { name: `layout/${name}`, value: rate(ours), unit: 'M runs/s', baseline: rate(theirs), peer: 'JavaScript loop' },
    'higher',
  );
}

const cell = ELEMENTS * ITEM;
measure(
  'blocks of 64 KiB, none adjacent',
  side(0, 1, false),
  side(0, 1, false),
  (i) => 2 * i,
  perBlock(HEADS * TOKENS * 2 * cell, 0),
);
measure(
  'blocks of 64 KiB, runs of eight',
  side(0, 1, false),
  side(0, 1, false),
  (i) => i + (i >> 3) * 8,
  perBlock(HEADS * TOKENS * 2 * cell, 0),
);
measure(
  'TP4 to TP8, heads first',
  side(0, 4, false),
  side(1, 8, false),
  (i) => 2 * i,
  perBlock(TOKENS * 2 * cell, TOKENS * 2 * cell),
);
measure('TP4 to TP8, tokens first', side(0, 4, true), side(1, 8, true), (i) => 2 * i, perToken(cell, cell));

// What one request costs: a prompt of 16 blocks, all layers.
{
  const { layout } = side(0, 1, false);
  const ids = Uint32Array.from({ length: 16 }, (_, index) => 3 * index);
  const blocks = { sourceBlocks: ids, destinationBlocks: ids };
  const plan = new TransferPlan(layout, layout);
  const call = nanoseconds(() => {
    for (let round = 0; round < 100; round++) plan.describe(blocks);
  });
  report({ name: 'layout/one request of 16 blocks, plan kept', value: call / 100_000, unit: 'us' }, 'lower');
  const cold = nanoseconds(() => {
    for (let round = 0; round < 100; round++) new TransferPlan(layout, layout).describe(blocks);
  });
  report({ name: 'layout/one request of 16 blocks, plan made', value: cold / 100_000, unit: 'us' }, 'lower');
}
