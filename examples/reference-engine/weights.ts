/**
 * Weights from a seed. They are untrained but strong: attention is sharp and its share of the hidden state large, so that
 * what the model says depends on every part of the context, and a KV cache with a wrong block in it says something else.
 */
import type { ModelConfig } from './config.js';
import type { Matrix } from './kernels.js';
import { VOCABULARY } from './tokenizer.js';

export interface LayerWeights {
  readonly attentionNorm: Float32Array;
  readonly query: Matrix;
  readonly key: Matrix;
  readonly value: Matrix;
  readonly output: Matrix;
  readonly feedForwardNorm: Float32Array;
  readonly gate: Matrix;
  readonly up: Matrix;
  readonly down: Matrix;
}

export interface Weights {
  readonly embedding: Matrix;
  readonly layers: readonly LayerWeights[];
  readonly norm: Float32Array;
  readonly head: Matrix;
}

/** Gains over the usual 1 / sqrt(columns): what makes the weights strong. */
const GAIN = { embedding: 0.5, queryKey: 3, value: 1.6, output: 1.6, feedForward: 1.4, head: 1 };

/** Uniform numbers from 0 to 1 (mulberry32, public domain). */
function uniform(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The weights of `config` with this seed: the same ones each time. */
export function makeWeights(config: ModelConfig, seed: number): Weights {
  const { dim, heads, kvHeads, headDim, hidden } = config;
  const random = uniform(seed);
  // Three uniform numbers make a bell that is good enough, without a logarithm: the variance of their sum is 1/4.
  const normal = () => 2 * (random() + random() + random() - 1.5);
  const matrix = (rows: number, columns: number, gain: number): Matrix => {
    const scale = gain / Math.sqrt(columns);
    return { rows, columns, values: Float32Array.from({ length: rows * columns }, () => normal() * scale) };
  };
  const norm = () => Float32Array.from({ length: dim }, () => 1 + 0.1 * normal());
  return {
    embedding: matrix(VOCABULARY, dim, GAIN.embedding * Math.sqrt(dim)),
    layers: Array.from({ length: config.layers }, () => ({
      attentionNorm: norm(),
      query: matrix(heads * headDim, dim, GAIN.queryKey),
      key: matrix(kvHeads * headDim, dim, GAIN.queryKey),
      value: matrix(kvHeads * headDim, dim, GAIN.value),
      output: matrix(dim, heads * headDim, GAIN.output),
      feedForwardNorm: norm(),
      gate: matrix(hidden, dim, GAIN.feedForward),
      up: matrix(hidden, dim, GAIN.feedForward),
      down: matrix(dim, hidden, GAIN.feedForward),
    })),
    norm: norm(),
    head: matrix(VOCABULARY, dim, GAIN.head),
  };
}
