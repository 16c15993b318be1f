/**
 * What a client that lends a disk serves to those who read from it (wheel 0.3.13.post1, observed: names of the functions, the
 * type literals of its answers, and keys of the form tenant, 0, key).
 */
import { method } from '../method.js';
import { bool, bytes, expected, i64, struct, text, u64, vector } from '../types.js';

const SERVICE = 'mooncake::RealClient';

/** Where the bytes lie in memory of the engine of that name, one address a key, for `ttlMs`. */
const staged = struct({ batch: u64, addresses: vector(u64), engine: text, ttlMs: u64 });

export const CLIENT_METHODS = {
  batchGetOffloadObject: method(
    'batch_get_offload_object',
    { keys: vector(bytes), sizes: vector(i64) },
    expected(staged),
    SERVICE,
  ),
  /** The reader is done with a batch; whether it was still there. */
  releaseOffloadBuffer: method('release_offload_buffer', { batch: u64 }, bool, SERVICE),
};
