/** A model that computes a prompt in milliseconds, prompts for it, and what it says without any cache. */
import { GENERATED, KvCache, MAX_ROWS, Model, type Rows } from 'mooncake-ts/reference-engine';

export const SMALL = { layers: 3, dim: 32, heads: 4, kvHeads: 2, headDim: 8, hidden: 48, maxPositions: 1024 };
export const model = new Model(SMALL, 7);

/** Texts without repetition, so that no block looks like another: `length` characters, different for each `name`. */
export function text(name: string, length: number): string {
  let [out, state] = ['', [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) >>> 0];
  while (out.length < length) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out += String.fromCharCode(97 + ((state >>> 16) % 26));
  }
  return out;
}

/** Takes tokens `from` on through the model, `step` at a time; the logits that follow each. */
export function logitsOf(
  tokens: readonly number[],
  {
    caches,
    blocks,
    step = tokens.length,
    of = model,
  }: {
    caches: readonly KvCache[];
    blocks: readonly number[];
    step?: number;
    of?: Model;
  },
): Float32Array[] {
  const all: Float32Array[] = [];
  for (let from = 0; from < tokens.length; from += step) {
    const part = tokens.slice(from, from + step);
    const rows: Rows = { tokens: part, positions: part.map((_, i) => from + i), blocks: part.map(() => blocks) };
    const hidden = of.embed(rows);
    for (let layer = 0; layer < of.config.layers; layer++) {
      for (let at = 0; at < part.length; at += MAX_ROWS) {
        of.layer(layer, rows, hidden, caches, at, Math.min(part.length, at + MAX_ROWS));
      }
    }
    for (const row of part.keys()) all.push(of.logits(hidden, row).slice());
  }
  return all;
}

/** Empty caches of every rank, 16 tokens a block unless told. */
export function emptyCaches({ size = 1, blocks = 64, blockSize = 16, of = model } = {}): KvCache[] {
  return Array.from({ length: size }, (_, rank) => new KvCache({ config: of.config, blocks, blockSize, rank, size }));
}

const known = new Map<string, number[]>();

/** The tokens that follow `prompt`, each computed from the whole text before it in an empty cache. */
export function expected(prompt: readonly number[], count: number, of = model): number[] {
  const key = `${of.name} ${prompt}`;
  const found = known.get(key) ?? [];
  known.set(key, found);
  while (found.length < count) {
    const tokens = [...prompt, ...found];
    const blocks = Array.from({ length: Math.ceil(tokens.length / 16) }, (_, i) => i);
    const caches = emptyCaches({ blocks: blocks.length, of });
    const logits = logitsOf(tokens, { caches, blocks, of }).at(-1) as Float32Array;
    found.push(GENERATED.reduce((best, token) => (logits[token] > logits[best] ? token : best)));
  }
  return found.slice(0, count);
}
