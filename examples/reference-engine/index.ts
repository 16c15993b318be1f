export { DEFAULT_MODEL, type ModelConfig } from './config.js';
export { KvCache } from './kv-cache.js';
export { Model } from './model.js';
