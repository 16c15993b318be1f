/** mooncake-ts/edge: hashing, prefix matching and instance choice with no Node API. */
export { BlockHashes, type HashWidth } from '../core/block-hashes.js';
export { type ErrorCode, MooncakeError } from '../core/errors.js';
export * from '../core/hash.js';
