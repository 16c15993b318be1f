/**
 * The KV cache of a model that computes nothing: the bytes of a cell are a function of (model, layer, head, key or value,
 * every token up to its own), as attention makes them, so each byte that a connector brings can be compared with what
 * the engine would have computed.
 */
import { type KvCaches, KvLayout, type KvLayoutOptions, type KvTensorOptions } from 'mooncake-ts';

export interface CacheShape {
  model: string;
  layers: number;
  /** KV heads of the model. */
  heads: number;
  /** Bytes of one key (or value) of one head and token; even. */
  cellBytes: number;
  blockSize: number;
  blocks: number;
  /**
   * Where cells lie. fused: vLLM on CPU, all layers in one memory, (layer, block, head, token, key|value). split:
   * FlashAttention, a memory per layer, (key|value, block, token, head). latent: no heads, (layer, block, token), the same
   * on every rank.
   */
  form: 'fused' | 'split' | 'latent';
  rank: number;
  tensorParallelSize: number;
  /** Where a memory comes from. Default: this process's own. */
  allocate?: (bytes: number) => Uint8Array;
}

/** What a cell depends on of its tokens: two words per position, each a function of every token up to there. */
export class Prefix {
  #states: number[] = [];
  #low: number;
  #high = 0x9e3779b9;

  constructor(salt = '') {
    this.#low = word(salt);
  }

  /** The state behind token `position`; `tokens` may have grown since the last call, but never changed. */
  at(tokens: readonly number[], position: number): [number, number] {
    for (let i = this.#states.length / 2; i <= position; i++) {
      this.#low = mix(this.#low ^ tokens[i]);
      this.#high = mix(this.#high + Math.imul(this.#low, 0x85ebca6b) + tokens[i]);
      this.#states.push(this.#low, this.#high);
    }
    return [this.#states[2 * position], this.#states[2 * position + 1]];
  }
}

function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}

function word(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash;
}

/** One rank's memory. */
export class RankCache {
  readonly memories: readonly Uint8Array[];
  readonly #shape: CacheShape;
  readonly #own: KvLayout;
  readonly #salt: number;
  #noise = 1;

  constructor(shape: CacheShape) {
    this.#shape = shape;
    this.#salt = word(shape.model);
    const bytes = 2 * shape.cellBytes * this.#localHeads() * shape.blockSize * shape.blocks;
    const { allocate = (length) => new Uint8Array(length) } = shape;
    this.memories =
      shape.form === 'split'
        ? Array.from({ length: shape.layers }, () => allocate(bytes))
        : [allocate(bytes * shape.layers)];
    this.#own = this.layout(this.memories.map((_, index) => index));
    for (let block = 0; block < shape.blocks; block++) this.poison(block);
  }

  #localHeads(): number {
    return this.#shape.form === 'latent' ? 1 : Math.max(1, this.#shape.heads / this.#shape.tensorParallelSize);
  }

  get caches(): KvCaches {
    return { memories: this.memories, layout: (segments) => this.layout(segments) };
  }

  layout(segments: readonly number[]): KvLayout {
    const { layers, heads, cellBytes, blockSize, blocks, form, rank, tensorParallelSize } = this.#shape;
    const local = this.#localHeads();
    const page = blockSize * local * cellBytes;
    const tensor = (step: number, strides: KvTensorOptions['strides'], elements = cellBytes / 2) => ({
      dtype: 'bfloat16' as const,
      elements,
      strides,
      at:
        form === 'split'
          ? segments.map((segment) => ({ segment, offset: step }))
          : { segment: segments[0], offset: step },
    });
    const fused = {
      layer: 2 * page * blocks,
      block: 2 * page,
      head: 2 * cellBytes * blockSize,
      token: 2 * cellBytes,
    };
    const split = { block: page, token: local * cellBytes, head: cellBytes };
    const latent = { layer: fused.layer, block: 2 * page, token: (2 * page) / blockSize };
    const tensors: Record<string, KvTensorOptions> =
      form === 'fused'
        ? { k: tensor(0, fused), v: tensor(cellBytes, fused) }
        : form === 'split'
          ? { k: tensor(0, split), v: tensor(page * blocks, split) }
          : { latent: tensor(0, latent, page / blockSize) };
    const options: KvLayoutOptions = {
      segments: segments.map((id, index) => ({ id, length: this.memories[index].length })),
      tensorParallel: { rank, size: tensorParallelSize },
      groups: [
        {
          kind: form === 'latent' ? 'mla' : 'full',
          layers: { from: 0, to: layers },
          heads: form === 'latent' ? undefined : heads,
          blockSize,
          blocks,
          tensors,
        },
      ],
    };
    return new KvLayout(options);
  }

  /** Fills a block with noise that no engine computes: who reads it after it was freed gets wrong bytes. */
  poison(block: number): void {
    for (let layer = 0; layer < this.#shape.layers; layer++) {
      this.#eachCell(layer, block, (cell) => {
        for (let i = 0; i < cell.length; i++) cell[i] = this.#noise = mix(this.#noise + 0x6d2b79f5);
      });
    }
  }

  /** Writes what the model computes in `layer` for the token at `position`, whose place is (block, slot). */
  compute(layer: number, block: number, slot: number, state: [number, number]): void {
    this.#eachCell(layer, block, (cell, seed) => fill(cell, seed, state), slot);
  }

  /** Whether the cells at (layer, block, slot) hold what `compute` would write. */
  holds(layer: number, block: number, slot: number, state: [number, number]): boolean {
    let equal = true;
    this.#eachCell(
      layer,
      block,
      (cell, seed) => {
        const expected = new Uint8Array(cell.length);
        fill(expected, seed, state);
        for (let i = 0; i < cell.length; i++) if (cell[i] !== expected[i]) equal = false;
      },
      slot,
    );
    return equal;
  }

  #eachCell(layer: number, block: number, visit: (cell: Uint8Array, seed: number) => void, slot?: number): void {
    const { headRange, tensors } = this.#own.group();
    const [from, to] = slot === undefined ? [0, this.#shape.blockSize] : [slot, slot + 1];
    for (const [index, { places, bytes, block: perBlock, token: perToken, head: perHead }] of [
      ...tensors.values(),
    ].entries()) {
      const { segment, offset } = places[layer];
      for (let head = headRange.from; head < headRange.to; head++) {
        const seed = this.#salt ^ Math.imul(layer * 2 + index + 1, 0x9e3779b1) ^ Math.imul(head + 1, 0xc2b2ae3d);
        for (let token = from; token < to; token++) {
          const at = offset + block * perBlock + token * perToken! + (head - headRange.from) * (perHead ?? 0);
          visit(this.memories[segment].subarray(at, at + bytes), seed);
        }
      }
    }
  }
}

function fill(cell: Uint8Array, seed: number, [low, high]: [number, number]): void {
  let x = mix(seed ^ low) ^ mix(high + seed);
  for (let i = 0; i < cell.length; i++) cell[i] = (x = mix(x + 0x6d2b79f5 + i)) >>> 11;
}
