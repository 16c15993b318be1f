/** mooncake-ts/edge: hashing, prefix matching and instance choice with no Node API. */
export { BlockHashes, type HashWidth } from '../core/block-hashes.js';
export { crc64 } from '../core/checksum.js';
export * from '../core/choose.js';
export { type ErrorCode, MooncakeError } from '../core/errors.js';
export * from '../core/hash.js';
export {
  type HolderOptions,
  type InsertOptions,
  type OrderOptions,
  PrefixIndex,
  type PrefixIndexOptions,
  type PrefixStats,
} from '../core/prefix.js';
export type { Hash, Hashes, HashRun, KeyWidth } from '../core/prefix-keys.js';
export { type InstancePrefix, PrefixMatch, type Tier } from '../core/prefix-match.js';
export { PrefixReader, type PrefixReaderHandle } from '../core/prefix-reader.js';
export { type SharedCoreSource, useSharedCore } from '../core/wasm.js';
