/**
 * The model: a decoder of the Llama kind (RMSNorm, RoPE, grouped-query attention, SwiGLU), run layer by layer over a batch
 * of rows, one row per token that is to be computed. Keys and values live in the paged caches of the tensor-parallel
 * ranks, nothing else outlives a batch.
 *
 * Tensor parallelism cuts the heads: a rank projects, stores and attends its own, and their outputs meet in one row, in the
 * order of the heads, before the output projection. What is not cut is computed once, so results do not depend on the
 * number of ranks.
 */
import { Attention } from './attention.js';
import { type ModelConfig, modelConfig } from './config.js';
import { add, project, rmsNorm, swiglu } from './kernels.js';
import type { KvCache } from './kv-cache.js';
import { Rope } from './rope.js';
import { GENERATED, VOCABULARY } from './tokenizer.js';
import { type LayerWeights, makeWeights, type Weights } from './weights.js';

/** Tokens to compute, row by row. Rows of one sequence are in the order of their positions. */
export interface Rows {
  readonly tokens: readonly number[];
  readonly positions: readonly number[];
  /** The block ids of each row's sequence: one array for all rows of a sequence. */
  readonly blocks: readonly (readonly number[])[];
}

/** Rows that `layer` takes at most in one call: some milliseconds of work. */
export const MAX_ROWS = 16;

export class Model {
  readonly config: ModelConfig;
  readonly seed: number;
  /** Says which weights these are; part of every key under which their KV is shared. */
  readonly name: string;
  readonly #weights: Weights;
  readonly #attention: Attention;
  // Free between calls, so that engines of one process can share a model.
  readonly #normed: Float32Array;
  readonly #query: Float32Array;
  readonly #key: Float32Array;
  readonly #value: Float32Array;
  readonly #added: Float32Array;
  readonly #gate: Float32Array;
  readonly #up: Float32Array;
  readonly #logits = new Float32Array(VOCABULARY);

  constructor(config: Partial<ModelConfig> = {}, seed = 1) {
    const { dim, heads, kvHeads, headDim, hidden, layers, maxPositions } = (this.config = modelConfig(config));
    this.seed = seed;
    this.name = `reference-l${layers}-d${dim}-h${heads}.${kvHeads}x${headDim}-f${hidden}-seed${seed}`;
    this.#weights = makeWeights(this.config, seed);
    this.#attention = new Attention(headDim, heads / kvHeads, maxPositions, new Rope(headDim, maxPositions));
    this.#normed = new Float32Array(MAX_ROWS * dim);
    this.#query = new Float32Array(MAX_ROWS * heads * headDim);
    this.#key = new Float32Array(MAX_ROWS * kvHeads * headDim);
    this.#value = new Float32Array(MAX_ROWS * kvHeads * headDim);
    this.#added = new Float32Array(MAX_ROWS * dim);
    this.#gate = new Float32Array(MAX_ROWS * hidden);
    this.#up = new Float32Array(MAX_ROWS * hidden);
  }

  /** The hidden states of the rows before the first layer, `dim` elements each. */
  embed({ tokens }: Rows): Float32Array {
    const { columns, values } = this.#weights.embedding;
    const hidden = new Float32Array(tokens.length * columns);
    for (const [row, token] of tokens.entries()) {
      hidden.set(values.subarray(token * columns, (token + 1) * columns), row * columns);
    }
    return hidden;
  }

  /**
   * Takes rows `from` to `to` (MAX_ROWS at most) through a layer: writes their keys and values into the caches of all
   * ranks, reads those of the positions before them, and leaves their new hidden states in `hidden`.
   */
  layer(index: number, rows: Rows, hidden: Float32Array, caches: readonly KvCache[], from: number, to: number): void {
    const { dim } = this.config;
    const count = to - from;
    const weights = this.#weights.layers[index];
    rmsNorm(hidden, from * dim, count, weights.attentionNorm, this.#normed);
    for (const cache of caches) this.#attend(index, rows, cache, from, count);
    project(this.#query, count, weights.output, this.#added);
    add(hidden, from * dim, this.#added, count * dim);

    rmsNorm(hidden, from * dim, count, weights.feedForwardNorm, this.#normed);
    this.#feedForward(weights, count);
    add(hidden, from * dim, this.#added, count * dim);
  }

  /** One rank's heads: reads `#normed`, leaves their outputs in their columns of `#query`. */
  #attend(index: number, rows: Rows, cache: KvCache, from: number, count: number): void {
    const { heads, kvHeads, headDim } = this.config;
    const { query, key, value } = this.#weights.layers[index];
    const { heads: own, kvHeads: ownKv } = cache;
    project(this.#normed, count, query, this.#query, own.from * headDim, own.to * headDim);
    project(this.#normed, count, key, this.#key, ownKv.from * headDim, ownKv.to * headDim);
    project(this.#normed, count, value, this.#value, ownKv.from * headDim, ownKv.to * headDim);
    for (let r = 0; r < count; r++) {
      for (let head = ownKv.from; head < ownKv.to; head++) {
        const at = (r * kvHeads + head) * headDim;
        this.#store(index, cache, head, at, rows.blocks[from + r], rows.positions[from + r]);
      }
    }
    const shared = heads / kvHeads;
    for (let first = 0, end = 0; first < count; first = end) {
      const blocks = rows.blocks[from + first];
      do end++;
      while (end < count && rows.blocks[from + end] === blocks);
      for (let kvHead = ownKv.from; kvHead < ownKv.to; kvHead++) {
        const head = Math.max(own.from, kvHead * shared);
        const readers = Math.min(own.to, (kvHead + 1) * shared) - head;
        this.#attention.gather(cache, index, kvHead, blocks, rows.positions[from + end - 1] + 1);
        for (let r = first; r < end; r++) {
          this.#attention.attend(this.#query, (r * heads + head) * headDim, readers, rows.positions[from + r]);
        }
      }
    }
  }

  #store(layer: number, cache: KvCache, head: number, at: number, blocks: readonly number[], position: number): void {
    const { headDim } = this.config;
    const { blockSize, values } = cache;
    const block = blocks[Math.floor(position / blockSize)];
    const cell = cache.at(layer, block, head) + (position % blockSize) * 2 * headDim;
    for (let i = 0; i < headDim; i++) {
      values[cell + i] = this.#key[at + i];
      values[cell + headDim + i] = this.#value[at + i];
    }
  }

  #feedForward({ gate, up, down }: LayerWeights, count: number): void {
    project(this.#normed, count, gate, this.#gate);
    project(this.#normed, count, up, this.#up);
    swiglu(this.#gate, this.#up, count * gate.rows);
    project(this.#gate, count, down, this.#added);
  }

  /** The logits of a row's next token, one per token of the vocabulary; valid until the next call. */
  logits(hidden: Float32Array, row: number): Float32Array {
    const { norm, head } = this.#weights;
    rmsNorm(hidden, row * norm.length, 1, norm, this.#normed);
    project(this.#normed, 1, head, this.#logits);
    return this.#logits;
  }

  /** Greedy decoding: of the tokens that may be generated the likeliest, the first of equals. */
  next(hidden: Float32Array, row: number): number {
    const logits = this.logits(hidden, row);
    return GENERATED.reduce((best, token) => (logits[token] > logits[best] ? token : best));
  }
}
