/** The shape of the model, and what follows from it. */
import { integer } from './checks.js';

export interface ModelConfig {
  readonly layers: number;
  /** Width of the hidden state. */
  readonly dim: number;
  /** Query heads; a multiple of `kvHeads`, which they share (grouped-query attention). */
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head; a multiple of 4. */
  readonly headDim: number;
  /** Width of the feed-forward network. */
  readonly hidden: number;
  /** Longest context, in tokens. */
  readonly maxPositions: number;
}

export const DEFAULT_MODEL: ModelConfig = {
  layers: 4,
  dim: 128,
  heads: 8,
  kvHeads: 4,
  headDim: 16,
  hidden: 352,
  maxPositions: 4096,
};

/** The default with `changes`. Throws ERR_INVALID_ARGUMENT naming the field that does not fit. */
export function modelConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  const config = { ...DEFAULT_MODEL, ...changes };
  integer('model.layers', config.layers, 1, 64);
  integer('model.kvHeads', config.kvHeads, 1, 64);
  // Dot products come four at a time (kernels.ts).
  for (const field of ['dim', 'headDim', 'hidden'] as const) {
    integer(`model.${field} / 4`, config[field] / 4, 1, 1024);
  }
  integer('model.heads / model.kvHeads', config.heads / config.kvHeads, 1, 64);
  integer('model.maxPositions', config.maxPositions, 2, 1 << 20);
  return config;
}
