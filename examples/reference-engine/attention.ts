/**
 * Attention of the query heads that share a KV head, over a paged context. The context is first gathered from its blocks,
 * in the order of the positions, and serves every query of the rows that are computed together. So the sums do not depend
 * on which blocks hold the context, nor on who wrote them, nor on how many rows there are.
 *
 * Keys are cached as they were projected, and turned to their position (RoPE) when they are gathered. Attention does not
 * mind the order of its keys: were they cached turned, a context whose blocks are all there but in the wrong order would
 * pass.
 */
import { dots } from './kernels.js';
import type { KvCache } from './kv-cache.js';
import type { Rope } from './rope.js';

export class Attention {
  readonly #headDim: number;
  readonly #rope: Rope;
  /** A row of scores per query head, and a row of values per element of the head: one number per position. */
  readonly #positions: number;
  readonly #keys: Float32Array;
  readonly #values: Float32Array;
  readonly #scores: Float32Array;

  /** `shared`: query heads to a KV head. */
  constructor(headDim: number, shared: number, maxPositions: number, rope: Rope) {
    this.#headDim = headDim;
    this.#rope = rope;
    // Scores come four at a time. A cache line more: rows a power of two apart would push each other out of the cache.
    this.#positions = 4 * Math.ceil(maxPositions / 4) + 16;
    this.#keys = new Float32Array(this.#positions * headDim);
    this.#values = new Float32Array(this.#positions * headDim);
    this.#scores = new Float32Array(this.#positions * shared);
  }

  /** Takes the keys and values of a head at positions 0 to `positions` (not included) from the blocks that hold them. */
  gather(cache: KvCache, layer: number, kvHead: number, blocks: readonly number[], positions: number): void {
    const headDim = this.#headDim;
    const [keys, values] = [this.#keys, this.#values];
    const { values: cached, blockSize } = cache;
    for (let first = 0, b = 0; first < positions; first += blockSize, b++) {
      const end = Math.min(positions, first + blockSize);
      let cell = cache.at(layer, blocks[b], kvHead);
      for (let p = first; p < end; p++, cell += 2 * headDim) {
        for (let i = 0; i < headDim; i++) {
          keys[p * headDim + i] = cached[cell + i];
          values[i * this.#positions + p] = cached[cell + headDim + i];
        }
        this.#rope.rotate(keys, p * headDim, p);
      }
    }
  }

  /**
   * `heads` query heads at `x[at]`, one behind the other, attend to what was gathered up to their own `position`; their
   * outputs are written over them.
   */
  attend(x: Float32Array, at: number, heads: number, position: number): void {
    const [headDim, stride, scores] = [this.#headDim, this.#positions, this.#scores];
    const count = position + 1;
    const queries = { values: x, at, stride: headDim };
    const keys = { values: this.#keys, at: 0, stride: headDim };
    for (let head = 0; head < heads; head++) this.#rope.rotate(x, at + head * headDim, position);
    dots(queries, heads, keys, 4 * Math.ceil(count / 4), { values: scores, at: 0, stride }, headDim);
    for (let head = 0; head < heads; head++) softmax(scores, head * stride, count, 1 / Math.sqrt(headDim));
    dots({ values: scores, at: 0, stride }, heads, { values: this.#values, at: 0, stride }, headDim, queries, count);
  }
}

/** x = exp(x * scale), divided by the sum of all. */
function softmax(x: Float32Array, at: number, length: number, scale: number): void {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = at; i < at + length; i++) largest = Math.max(largest, x[i]);
  let total = 0;
  for (let i = at; i < at + length; i++) {
    x[i] = Math.exp((x[i] - largest) * scale);
    total += x[i];
  }
  for (let i = at; i < at + length; i++) x[i] /= total;
}
