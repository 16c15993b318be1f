/**
 * The paged KV cache of one tensor-parallel rank, laid out as vLLM lays out its own on CPU: one memory of
 *
 *     (layer, block, head, token, key and value)      float32
 *
 * A connector sees it as `KvCaches`: the memory, and the layout that says where a block's bytes lie.
 */
import { fromTorch, headRange, type KvCaches, KvLayout, type KvRange } from 'mooncake-ts';
import type { ModelConfig } from './config.js';

export interface KvCacheOptions {
  config: ModelConfig;
  blocks: number;
  /** Tokens per block. */
  blockSize: number;
  rank: number;
  /** Tensor-parallel ranks. */
  size: number;
}

export class KvCache implements KvCaches {
  /** Every element of the cache. */
  readonly values: Float32Array;
  readonly memories: readonly [Uint8Array];
  /** KV heads of the model that this rank holds, and the query heads that read them. */
  readonly kvHeads: KvRange;
  readonly heads: KvRange;
  readonly blockSize: number;
  readonly #options: KvCacheOptions;

  constructor(options: KvCacheOptions) {
    const { config, blocks, blockSize, rank, size } = options;
    this.#options = options;
    this.blockSize = blockSize;
    this.kvHeads = headRange(config.kvHeads, rank, size);
    this.heads = headRange(config.heads, rank, size);
    const held = this.kvHeads.to - this.kvHeads.from;
    this.values = new Float32Array(config.layers * blocks * held * blockSize * 2 * config.headDim);
    this.memories = [new Uint8Array(this.values.buffer)];
  }

  /** Index in `values` of the key of a head (of the model) and a block's first token; its value follows it. */
  at(layer: number, block: number, kvHead: number): number {
    const { config, blocks, blockSize } = this.#options;
    const held = this.kvHeads.to - this.kvHeads.from;
    const cell = (layer * blocks + block) * held + (kvHead - this.kvHeads.from);
    return cell * blockSize * 2 * config.headDim;
  }

  layout([segment]: readonly number[]): KvLayout {
    const { config, blocks, blockSize, rank, size } = this.#options;
    const shape = [config.layers, blocks, this.kvHeads.to - this.kvHeads.from, blockSize, 2 * config.headDim];
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, length) => product * length, 1));
    return new KvLayout({
      segments: [{ id: segment, length: this.values.byteLength }],
      tensorParallel: { rank, size },
      groups: [
        {
          kind: 'full',
          layers: { from: 0, to: config.layers },
          heads: config.kvHeads,
          ...fromTorch({
            axes: ['layer', 'block', 'head', 'token', 'keyValue'],
            shape,
            strides,
            dtype: 'float32',
            at: { segment, offset: 0 },
          }),
        },
      ],
    });
  }
}
