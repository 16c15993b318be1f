/**
 * Block hashes: vLLM's chain, bit for bit (hash_block_tokens of vllm/v1/core/kv_cache_utils.py), and Mooncake's rolling
 * sequence hash. One call of the core hashes a whole prompt; many prompts go in one call.
 */
import { BlockHashes } from './block-hashes.js';
import { oneOf, options as optionsObject, bytes as someBytes } from './check.js';
import { errors } from './errors.js';
import { CHUNK, hashBatchInto, hashInto, type Prompt, type ReadyPrompt, readyPrompt } from './hash/into.js';
import {
  blockSizeOf,
  type DigestKind,
  digestBytes,
  digestKinds,
  type HashAlgorithm,
  type HashExports,
  type HashOptions,
  type HashPlan,
  hashBytes,
  hashPlan,
  noneHashOf,
} from './hash/plan.js';
import { copyTokens, holdTokens, isTokens, type Tokens } from './hash/tokens.js';
import { scratch } from './wasm.js';

export { type ExtraKeysRequest, extraKeys, type MultimodalItem } from './hash/extra-keys.js';
export type { ExtraKeys, Prompt } from './hash/into.js';
export type { DigestKind, HashAlgorithm, HashOptions } from './hash/plan.js';
export type { Tokens } from './hash/tokens.js';
export type { BytesHex, ExtraKey } from './hash/values.js';

const LIMIT = 2 ** 32;
/** Bytes of tokens of one batch call; longer prompts are hashed by themselves, in chunks. */
const BATCH = 4 << 20;
/** What a prompt takes in a batch beside its tokens, so that many short ones are bounded too. */
const PROMPT_ROOM = 64;
/** Scratch of assembly/hash/sequence.ts. */
const SEQUENCE_STATE = 320;

export interface BlockHashOptions extends HashOptions, Omit<Prompt, 'tokens'> {}

/**
 * Hashes of the full blocks of a prompt; what is left over at its end has no hash, as in vLLM.
 *
 * @throws ERR_INVALID_ARGUMENT for tokens out of range, a block size out of range, a parent of the wrong width;
 *   ERR_UNDEFINED_HASH where vLLM's hash is not a function of the arguments (xxhash* without a seed, pickled extra keys
 *   with a repeated value).
 */
export function blockHashes(tokens: Tokens, options: BlockHashOptions): BlockHashes {
  const plan = hashPlan(options);
  return single(
    readyPrompt('tokens', '', { tokens, parent: options.parent, extraKeys: options.extraKeys }, plan),
    plan,
  );
}

function single(prompt: ReadyPrompt, plan: HashPlan): BlockHashes {
  const core = scratch<HashExports>();
  const { ptr, count } = hashInto(core, core.heap, LIMIT, prompt, plan);
  return new BlockHashes(core.u8.slice(ptr, ptr + count * plan.width), plan.width);
}

/**
 * Hashes of many prompts: token arrays, or objects with a parent or extra keys of their own. SHA-256 runs four chains at
 * once, so this takes about half the time of one call each.
 */
export function blockHashesBatch(prompts: readonly (Tokens | Prompt)[], options: HashOptions): BlockHashes[] {
  if (!Array.isArray(prompts)) throw errors.invalidArgument('prompts', prompts, 'an array of prompts');
  const plan = hashPlan(options);
  const results: BlockHashes[] = [];
  let group: ReadyPrompt[] = [];
  let bytes = 0;
  const flush = () => {
    const core = scratch<HashExports>();
    let { ptr, counts } = hashBatchInto(core, core.heap, LIMIT, group, plan);
    for (const count of counts) {
      results.push(new BlockHashes(core.u8.slice(ptr, ptr + count * plan.width), plan.width));
      ptr += count * plan.width;
    }
    group = [];
    bytes = 0;
  };
  for (const [i, item] of prompts.entries()) {
    const name = `prompts[${i}]`;
    const prompt = isTokens(item)
      ? readyPrompt(name, `${name}.`, { tokens: item }, plan)
      : readyPrompt(`${name}.tokens`, `${name}.`, optionsObject(name, item as Prompt), plan);
    const own = 4 * prompt.blocks * plan.blockSize + (prompt.extras?.bytes.length ?? 0) + PROMPT_ROOM;
    if (group.length > 0 && bytes + own > BATCH) flush();
    if (own > BATCH) {
      results.push(single(prompt, plan));
      continue;
    }
    group.push(prompt);
    bytes += own;
  }
  if (group.length > 0) flush();
  return results;
}

/**
 * NONE_HASH, the parent of every first block. Without a seed, vLLM's default for sha256*; for xxhash* it is random in
 * each process then, which is refused (ERR_UNDEFINED_HASH).
 */
export function noneHash(algorithm: HashAlgorithm = 'sha256_cbor', seed?: string | null): Uint8Array {
  return noneHashOf(hashPlan({ blockSize: 1, algorithm, seed })).slice();
}

export interface SequenceHashOptions {
  /** Tokens in a block, 1 to 65,536. */
  blockSize: number;
  /** Seed of XXH3-64, 0 to 2^64 - 1. Default 0. */
  seed?: bigint | number;
  /** The sequence hash of the block before, eight bytes (big-endian) or hex. */
  parent?: Uint8Array | string | null;
}

/** A seed of XXH3. */
function seedOf(seed: unknown): bigint {
  const value = typeof seed === 'number' && Number.isSafeInteger(seed) ? BigInt(seed) : (seed ?? 0n);
  if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) {
    throw errors.invalidArgument('seed', seed, 'an integer from 0 to 2^64 - 1 (a bigint above 2^53 - 1)');
  }
  return value;
}

/**
 * Mooncake's rolling sequence hash of each full block: XXH3-64 of the block's tokens as little-endian u32, chained as
 * seq[i] = XXH3-64(seq[i-1] LE || local[i] LE). Eight bytes a block, big-endian; `events()` gives them as numbers.
 */
export function sequenceHashes(tokens: Tokens, options: SequenceHashOptions): BlockHashes {
  const { blockSize: size, seed: seedOption, parent } = optionsObject('options', options);
  const blockSize = blockSizeOf(size);
  const seed = seedOf(seedOption);
  const before = parent === undefined || parent === null ? undefined : hashBytes('parent', parent, 8);
  const held = holdTokens('tokens', tokens, blockSize);
  const blocks = Math.floor(held.length / blockSize);
  const core = scratch<HashExports>();
  const state = core.heap;
  const parentAt = state + SEQUENCE_STATE;
  const out = parentAt + 16;
  const at = Math.ceil((out + 8 * blocks) / 16) * 16;
  const chunk = Math.max(1, Math.floor(CHUNK / (4 * blockSize)));
  core.reserve(at + 4 * blockSize * Math.min(chunk, blocks), 'tokens');
  if (before) core.u8.set(before, parentAt);
  for (let done = 0; done < blocks; done += chunk) {
    const count = Math.min(chunk, blocks - done);
    const to = out + 8 * done;
    copyTokens(core, 'tokens', held, done * blockSize, (done + count) * blockSize, at);
    core.exports.sequenceHashes(at, count, blockSize, seed, done > 0 ? to - 8 : before ? parentAt : 0, to, state);
  }
  return new BlockHashes(core.u8.slice(out, out + 8 * blocks), 8);
}

/** Digest of any bytes: SHA-256, or XXH3 of 64 or 128 bits (big-endian, as `xxhsum` prints it) with a seed. */
export function digest(kind: DigestKind, data: Uint8Array, seed?: bigint | number): Uint8Array {
  const name = oneOf('kind', kind, digestKinds);
  if (name === 'sha256' && seed !== undefined) throw errors.invalidArgument('seed', seed, 'left out: SHA-256 has none');
  return digestBytes(name, someBytes('data', data), seedOf(seed));
}
