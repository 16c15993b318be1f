/**
 * Attention of one query head over a paged context: positions 0 to `position`, found through the request's block ids, in
 * the order of the positions. So the sums do not depend on which blocks hold the context, nor on who wrote them.
 *
 * Keys are cached as they were projected, and turned to their position (RoPE) when they are read. Attention does not mind
 * the order of its keys: were they cached turned, a context whose blocks are all there but in the wrong order would pass.
 */
import type { KvCache } from './kv-cache.js';
import type { Rope } from './rope.js';

export class Attention {
  readonly #headDim: number;
  readonly #rope: Rope;
  readonly #scores: Float64Array;

  constructor(headDim: number, maxPositions: number, rope: Rope) {
    this.#headDim = headDim;
    this.#rope = rope;
    this.#scores = new Float64Array(maxPositions);
  }

  /** Writes the head's output over its query, which is `x[at]` and the elements behind it. */
  attend(
    x: Float32Array,
    at: number,
    cache: KvCache,
    layer: number,
    kvHead: number,
    blocks: readonly number[],
    position: number,
  ): void {
    const headDim = this.#headDim;
    const scores = this.#scores;
    const rope = this.#rope;
    const { values, blockSize } = cache;
    rope.rotate(x, at, position);
    const scale = 1 / Math.sqrt(headDim);
    let largest = Number.NEGATIVE_INFINITY;
    for (let first = 0, b = 0; first <= position; first += blockSize, b++) {
      const end = Math.min(position + 1, first + blockSize);
      let key = cache.at(layer, blocks[b], kvHead);
      for (let p = first; p < end; p++, key += 2 * headDim) {
        const score = rope.score(x, at, values, key, p) * scale;
        scores[p] = score;
        if (score > largest) largest = score;
      }
    }
    let total = 0;
    for (let p = 0; p <= position; p++) {
      scores[p] = Math.exp(scores[p] - largest);
      total += scores[p];
    }
    // Four elements at a time, so that their sums stay in registers along the whole context.
    for (let i = 0; i < headDim; i += 4) {
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      for (let first = 0, b = 0; first <= position; first += blockSize, b++) {
        const end = Math.min(position + 1, first + blockSize);
        let value = cache.at(layer, blocks[b], kvHead) + headDim + i;
        for (let p = first; p < end; p++, value += 2 * headDim) {
          const weight = scores[p];
          s0 += weight * values[value];
          s1 += weight * values[value + 1];
          s2 += weight * values[value + 2];
          s3 += weight * values[value + 3];
        }
      }
      x[at + i] = s0 / total;
      x[at + i + 1] = s1 / total;
      x[at + i + 2] = s2 / total;
      x[at + i + 3] = s3 / total;
    }
  }
}
