import fc from 'fast-check';
import {
  type Descriptors,
  KvLayout,
  type KvLayoutOptions,
  planTransfer,
  TransferPlan,
  transferSources,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Cache,
  type Draw,
  drawCache,
  drawLayout,
  fewestRuns,
  headsOf,
  memories,
  naiveMoves,
  shuffled,
  type Transfer,
} from './layout-model.js';

const RUNS = { numRuns: 800, includeErrorInReport: true };

/** Copies bytes as the descriptors say, checking each against the segments' bounds. */
function apply(descriptors: Descriptors, from: Map<number, Uint8Array>, to: Map<number, Uint8Array>): void {
  for (const { sourceSegment, destinationSegment, sourceOffset, destinationOffset, length } of descriptors) {
    const [source, destination] = [from.get(sourceSegment)!, to.get(destinationSegment)!];
    assert.ok(length > 0, 'a record of no bytes');
    assert.ok(sourceOffset + length <= source.length, 'a record behind the end of its source');
    assert.ok(destinationOffset + length <= destination.length, 'a record behind the end of its destination');
    destination.set(source.subarray(sourceOffset, sourceOffset + length), destinationOffset);
  }
}

/** No record begins where the one before it ends, on both sides. */
function checkMerged(descriptors: Descriptors): void {
  const list = [...descriptors];
  for (const [index, next] of list.entries()) {
    const last = list[index - 1];
    const touches =
      last !== undefined &&
      last.sourceSegment === next.sourceSegment &&
      last.destinationSegment === next.destinationSegment &&
      last.sourceOffset + last.length === next.sourceOffset &&
      last.destinationOffset + last.length === next.destinationOffset;
    assert.not.ok(touches, `records ${index - 1} and ${index} are one run`);
  }
}

/** Applies the descriptors and compares every byte of the destination with the naive copy. */
function checkAgainst(
  pieces: Iterable<Descriptors>,
  cache: Cache,
  source: KvLayoutOptions,
  destination: KvLayoutOptions,
  job: Transfer,
): void {
  const moves = naiveMoves(cache, source, destination, job);
  const from = memories(source, 12345);
  const [expected, actual] = [memories(destination, 999), memories(destination, 999)];
  for (const { sourceSegment, sourceOffset, segment, offset } of moves.values()) {
    expected.get(segment)![offset] = from.get(sourceSegment)![sourceOffset];
  }
  let [records, bytes] = [0, 0];
  for (const descriptors of pieces) {
    checkMerged(descriptors);
    apply(descriptors, from, actual);
    records += descriptors.count;
    bytes += descriptors.totalBytes;
  }
  for (const [id, memory] of expected) assert.equal(actual.get(id), memory, `segment ${id}`);
  assert.is(bytes, moves.size, 'a byte moved twice');
  assert.ok(records >= fewestRuns(moves), 'fewer records than runs');
}

const divisors = (heads: number) =>
  [1, 2, 3, 4, 6, 8, 12, 16].filter((size) => heads % size === 0 || size % heads === 0);

/** A rank's shape: some of the layers in any order, any fitting tensor-parallel size. */
function drawRank(draw: Draw, cache: Cache, blockSize: number) {
  const sizes = cache.heads > 0 ? divisors(cache.heads) : [1, 2, 3];
  const size = sizes[draw(0, sizes.length - 1)];
  const all = Array.from({ length: cache.layers }, (_, layer) => layer);
  const some = draw(0, 2) === 0 ? all.filter(() => draw(0, 2) > 0) : all;
  return {
    rank: draw(0, size - 1),
    size,
    layers: draw(0, 3) ? some : shuffled(draw, some),
    blockSize,
    blocks: draw(4, 9),
  };
}

/** The first rank of b's deployment that holds a head of a's rank. */
function rankThatShares(heads: number, a: { rank: number; size: number }, b: { rank: number; size: number }): number {
  if (heads === 0) return b.rank;
  const [wanted] = headsOf(heads, a.rank, a.size);
  return Array.from({ length: b.size }, (_, rank) => rank).findIndex((rank) =>
    headsOf(heads, rank, b.size).includes(wanted),
  );
}

/** Ids of distinct blocks in runs, as an allocator gives them, or in any order; never 0, vLLM's null block. */
function drawIds(draw: Draw, count: number, blocks: number): number[] {
  const first = draw(1, blocks - count);
  const run = Array.from({ length: count }, (_, index) => first + index);
  return [
    run,
    [...run].reverse(),
    shuffled(
      draw,
      Array.from({ length: blocks - 1 }, (_, id) => id + 1),
    ).slice(0, count),
  ][draw(0, 2)];
}

test('any two layouts of a cache: the descriptors copy what an element-by-element copy does, in merged runs', () => {
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const draw: Draw = (min, max) => g(fc.integer, { min, max });
      const cache = drawCache(draw);
      const perBlock = Object.values(cache.tensors).some(({ token }) => !token);
      const sourceSize = draw(1, 6);
      const destinationSize =
        cache.kind === 'state' || draw(0, 2) ? sourceSize : perBlock ? [1, sourceSize][draw(0, 1)] : draw(1, 6);
      const [a, b] = [drawRank(draw, cache, sourceSize), drawRank(draw, cache, destinationSize)];
      if (cache.kind === 'state') Object.assign(b, { rank: a.rank, size: a.size });
      // Mostly ranks that share heads.
      if (draw(0, 4)) b.rank = rankThatShares(cache.heads, a, b);
      const [source, destination] = [drawLayout(draw, cache, a), drawLayout(draw, cache, b)];

      const most = Math.min((a.blocks - 1) * sourceSize, (b.blocks - 1) * destinationSize);
      const whole = sourceSize === destinationSize && draw(0, 2) > 0;
      const to = whole ? draw(1, most / sourceSize) * sourceSize : draw(1, most);
      const drawn = whole ? 0 : draw(0, to);
      const from = perBlock ? drawn - (drawn % destinationSize) : drawn;
      const sourceBlocks = drawIds(draw, Math.ceil(to / sourceSize), a.blocks);
      const destinationBlocks = drawIds(draw, Math.ceil(to / destinationSize), b.blocks);
      if (sourceBlocks.length > 1 && draw(0, 3) === 0) sourceBlocks[0] = sourceBlocks[1];
      if (cache.kind === 'sliding') {
        // What lies before the window is gone on the source, perhaps also on the destination.
        const unseen = to - cache.window! + 1;
        for (const [index] of sourceBlocks.entries()) {
          if ((index + 1) * sourceSize <= unseen && draw(0, 1)) sourceBlocks[index] = 0;
        }
        for (const [index] of destinationBlocks.entries()) {
          if ((index + 1) * destinationSize <= unseen && draw(0, 1)) destinationBlocks[index] = 0;
        }
      } else if (cache.kind === 'state') {
        for (const [index] of sourceBlocks.slice(1).entries()) {
          if (draw(0, 1)) sourceBlocks[index] = destinationBlocks[index] = 0;
        }
      }
      const range = draw(0, 2) === 0 ? { from: draw(0, cache.layers), to: cache.layers } : undefined;
      const job: Transfer = {
        sourceBlocks,
        destinationBlocks,
        from,
        to,
        layers: (layer) => range === undefined || (layer >= range.from && layer < range.to),
        holes: (id) => (cache.kind === 'sliding' || cache.kind === 'state') && id === 0,
      };
      const plan = new TransferPlan(new KvLayout(source), new KvLayout(destination), { layers: range });
      const blocks = {
        sourceBlocks: Uint32Array.from(sourceBlocks),
        destinationBlocks: Int32Array.from(destinationBlocks),
        tokens: whole ? undefined : { from, to },
      };
      checkAgainst([plan.describe(blocks)], cache, source, destination, job);
      checkAgainst(plan.chunks(blocks, draw(1, 40)), cache, source, destination, job);
    }),
    RUNS,
  );
});

test('plans of any size pass through the bounded buffer without losing or splitting a run', () => {
  const blocks = 30000;
  const rank = (rank: number, size: number, tokenFirst: boolean) => {
    const heads = 4 / size;
    const cell = 64;
    const [token, head] = tokenFirst ? [heads * cell, cell] : [cell, 12 * cell];
    const block = 12 * heads * cell;
    return new KvLayout({
      segments: [{ id: 0, length: 3 * blocks * block }],
      tensorParallel: { rank, size },
      groups: [
        {
          kind: 'full',
          layers: [0, 1, 2],
          blockSize: 12,
          blocks,
          heads: 4,
          tensors: {
            kv: {
              dtype: 'uint8',
              elements: cell,
              strides: { block, token, head, layer: blocks * block },
              at: { segment: 0, offset: 0 },
            },
          },
        },
      ],
    });
  };
  // Runs of any length, so that short and long records meet the end of the buffer.
  const ids = Array.from({ length: blocks }, (_, id) => id).filter((id) => Math.imul(id, 2654435761) >>> 29 !== 0);
  const runs = ids.filter((id, index) => ids[index - 1] !== id - 1).length;
  const same = planTransfer(rank(0, 1, false), rank(0, 1, false), { sourceBlocks: ids, destinationBlocks: ids });
  assert.is(same.count, 3 * runs);
  assert.ok(same.count > 8192);
  checkMerged(same);
  const split = planTransfer(rank(0, 1, true), rank(1, 2, true), { sourceBlocks: ids, destinationBlocks: ids });
  assert.is(split.count, 3 * ids.length * 12);
  let index = 0;
  for (const { sourceOffset, destinationOffset, length } of split) {
    const [layer, pair, token] = [Math.floor(index / 12 / ids.length), Math.floor(index / 12) % ids.length, index % 12];
    const position = (layer * blocks + ids[pair]) * 12 + token;
    assert.ok(
      length === 128 && sourceOffset === position * 256 + 128 && destinationOffset === position * 128,
      `record ${index}`,
    );
    index++;
  }
  assert.is(same.totalBytes, 3 * ids.length * 12 * 256);
});

test('a destination rank finds the source ranks that fill it, and their plans together fill it whole', () => {
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const draw: Draw = (min, max) => g(fc.integer, { min, max });
      const cache = { ...drawCache(draw), layers: 4 };
      const sizes = cache.heads > 0 ? divisors(cache.heads) : [1, 2, 4];
      const [sourceSize, size] = [sizes[draw(0, sizes.length - 1)], sizes[draw(0, sizes.length - 1)]];
      const ranks = cache.kind === 'state' ? size : sourceSize;
      const sources: KvLayoutOptions[] = [];
      for (const layers of [[0, 1, 2], [3]]) {
        for (let rank = 0; rank < ranks; rank++) {
          sources.push(drawLayout(draw, cache, { rank, size: ranks, layers, blockSize: 2, blocks: 4 }));
        }
      }
      const destination = drawLayout(draw, cache, {
        rank: draw(0, size - 1),
        size,
        layers: [1, 3, 2],
        blockSize: 2,
        blocks: 5,
      });
      const blocks = { sourceBlocks: [2, 1], destinationBlocks: [1, 3] };
      const filled = memories(destination, 1);
      const expected = memories(destination, 1);
      const into = new KvLayout(destination);
      const all = sources.map((source) => new KvLayout(source));
      for (const need of transferSources(into, all)) {
        apply(planTransfer(all[need.source], into, { ...need, ...blocks }), memories(sources[need.source], 5), filled);
      }
      // Every source holds the same noise only at the same places, so each byte must come from a rank that has it.
      let missing = 0;
      const wanted = new Map<string, Set<number>>();
      for (const source of sources) {
        const job = { ...blocks, from: 0, to: 4, layers: () => true, holes: (id: number) => id === 0 };
        const from = memories(source, 5);
        for (const [key, move] of naiveMoves(cache, source, destination, job)) {
          const values = wanted.get(key) ?? new Set();
          wanted.set(key, values.add(from.get(move.sourceSegment)![move.sourceOffset]));
        }
      }
      for (const [id, memory] of filled) {
        for (const [offset, byte] of memory.entries()) {
          const values = wanted.get(`${id}:${offset}`);
          if (values ? !values.has(byte) : byte !== expected.get(id)![offset]) missing++;
        }
      }
      assert.is(missing, 0);
    }),
    { numRuns: 200, includeErrorInReport: true },
  );
});

test('replicas share the work: the ranks of a deployment read from different copies', () => {
  const draw: Draw = (min) => min;
  const cache: Cache = {
    kind: 'mla',
    heads: 0,
    layers: 1,
    tensors: { latent: { dtype: 'bfloat16', elements: 576, token: true, head: false } },
  };
  const rank = (rank: number) =>
    new KvLayout(drawLayout(draw, cache, { rank, size: 4, layers: [0], blockSize: 4, blocks: 4 }));
  const ranks = [0, 1, 2, 3].map(rank);
  assert.equal(
    ranks.map((destination) => transferSources(destination, ranks).map(({ source }) => source)),
    [[0], [1], [2], [3]],
  );
});

test.run();
