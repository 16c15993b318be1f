/** mooncake-ts/edge: hashing, prefix matching and instance choice with no Node API. */
export { type ErrorCode, MooncakeError } from '../core/errors.js';
