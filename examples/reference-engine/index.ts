/** mooncake-ts/reference-engine: a small, complete inference engine that attaches KV connectors (README.md). */
export { DEFAULT_MODEL, type ModelConfig } from './config.js';
export { ReferenceEngine } from './engine.js';
export { Generation, type GenerationResult } from './generation.js';
export { KvCache, type KvCacheOptions } from './kv-cache.js';
export { MAX_ROWS, Model, type Rows } from './model.js';
export type { EngineOptions, GenerateOptions } from './options.js';
export { BOS, decode, EOS, encode, GENERATED, VOCABULARY } from './tokenizer.js';
export { type LayerWeights, makeWeights, type Weights } from './weights.js';
