/**
 * The model as a textbook writes it: every token of the text is computed from the start, with no cache, no blocks, no
 * ranks, and arrays of arrays in double precision. It shares nothing with the engine but the weights.
 */
import { type ModelConfig, makeWeights, type Weights } from 'mooncake-ts/reference-engine';

type Vector = number[];
type Matrix = Weights['head'];

const times = ({ rows, columns, values }: Matrix, x: Vector): Vector =>
  Array.from({ length: rows }, (_, r) => x.reduce((sum, value, c) => sum + value * values[r * columns + c], 0));

const plus = (a: Vector, b: Vector): Vector => a.map((value, i) => value + b[i]);

function norm(x: Vector, gain: Float32Array): Vector {
  const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, i) => (value / Math.sqrt(mean + 1e-6)) * gain[i]);
}

/** Turns pairs (i, i + half) by position * 10000^(-i / half). */
function rope(x: Vector, position: number): Vector {
  const half = x.length / 2;
  return x.map((value, i) => {
    const angle = position * 10_000 ** (-(i % half) / half);
    return i < half
      ? value * Math.cos(angle) - x[i + half] * Math.sin(angle)
      : value * Math.cos(angle) + x[i - half] * Math.sin(angle);
  });
}

function softmax(x: Vector): Vector {
  const largest = Math.max(...x);
  const weights = x.map((value) => Math.exp(value - largest));
  const total = weights.reduce((sum, value) => sum + value, 0);
  return weights.map((value) => value / total);
}

/** The logits that follow each token of the text. */
export function naiveLogits(config: ModelConfig, seed: number, tokens: ArrayLike<number>): Vector[] {
  const { heads, kvHeads, headDim } = config;
  const weights = makeWeights(config, seed);
  const { columns, values } = weights.embedding;
  let hidden = Array.from(tokens, (token) => Array.from(values.subarray(token * columns, (token + 1) * columns)));
  for (const layer of weights.layers) {
    const normed = hidden.map((x) => norm(x, layer.attentionNorm));
    const head = (x: Vector, index: number) => x.slice(index * headDim, (index + 1) * headDim);
    const queries = normed.map((x) => times(layer.query, x));
    const keys = normed.map((x) => times(layer.key, x));
    const contents = normed.map((x) => times(layer.value, x));
    hidden = hidden.map((x, position) => {
      const attended = Array.from({ length: heads }, (_, h) => {
        const kv = Math.floor(h / (heads / kvHeads));
        const query = rope(head(queries[position], h), position);
        const scores = keys.slice(0, position + 1).map((key, at) => {
          const turned = rope(head(key, kv), at);
          return query.reduce((sum, value, i) => sum + value * turned[i], 0) / Math.sqrt(headDim);
        });
        const shares = softmax(scores);
        return shares
          .map((share, at) => head(contents[at], kv).map((value) => share * value))
          .reduce((sum, part) => plus(sum, part));
      }).flat();
      const middle = plus(x, times(layer.output, attended));
      const fed = norm(middle, layer.feedForwardNorm);
      const up = times(layer.up, fed);
      const gated = times(layer.gate, fed).map((value, i) => (value / (1 + Math.exp(-value))) * up[i]);
      return plus(middle, times(layer.down, gated));
    });
  }
  return hidden.map((x) => times(weights.head, norm(x, weights.norm)));
}
