/** mooncake-ts/master: the store's metadata service. */
export { type ErrorCode, MooncakeError } from '../core/errors.js';
export { MooncakeMaster } from '../planned.js';
