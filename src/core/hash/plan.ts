/** Checked options of a hashing call: which algorithm, block size and NONE_HASH. Made once, used for many prompts. */
import { integer, oneOf, options as optionsObject } from '../check.js';
import { errors } from '../errors.js';
import { fromHex } from '../hex.js';
import { scratch } from '../wasm.js';
import { cbor } from './cbor.js';
import { pickle } from './pickle.js';
import type { Serializer } from './values.js';

/** What assembly/hash exports. */
export interface HashExports {
  hashChains(
    jobs: number,
    count: number,
    digest: number,
    form: number,
    blockSize: number,
    scratch: number,
    stride: number,
  ): number;
  sequenceHashes(
    tokens: number,
    blocks: number,
    blockSize: number,
    seed: bigint,
    parent: number,
    out: number,
    scratch: number,
  ): void;
  digest(kind: number, p: number, length: number, seed: bigint, out: number, scratch: number): void;
  anyNegative(p: number, count: number): number;
}

/** vLLM's `--prefix-caching-hash-algo`: digest over pickle (no suffix) or over canonical CBOR. */
export type HashAlgorithm = 'sha256' | 'sha256_cbor' | 'xxhash' | 'xxhash_cbor';

interface AlgorithmTraits {
  /** Numbers of assembly/hash: digest 0 SHA-256, 1 XXH3-128; form 0 CBOR, 1 pickle. */
  digest: 0 | 1;
  form: 0 | 1;
  width: 16 | 32;
  serializer: Serializer;
}

const ALGORITHMS: Record<HashAlgorithm, AlgorithmTraits> = {
  sha256: { digest: 0, form: 1, width: 32, serializer: pickle },
  sha256_cbor: { digest: 0, form: 0, width: 32, serializer: cbor },
  xxhash: { digest: 1, form: 1, width: 16, serializer: pickle },
  xxhash_cbor: { digest: 1, form: 0, width: 16, serializer: cbor },
};
const NAMES = Object.keys(ALGORITHMS) as HashAlgorithm[];

/** What vLLM hashes into NONE_HASH where PYTHONHASHSEED is not set and the algorithm is cryptographic. */
export const DEFAULT_SEED = 'vllm-none-hash';
export const MAX_BLOCK_SIZE = 65536;

export interface HashOptions {
  /** Tokens in a block, 1 to 65,536. */
  blockSize: number;
  /** Default `sha256_cbor`. */
  algorithm?: HashAlgorithm;
  /** PYTHONHASHSEED of the instances; null or undefined: not set, which vLLM defines for sha256* only. */
  seed?: string | null;
}

export interface HashPlan extends AlgorithmTraits {
  readonly algorithm: HashAlgorithm;
  readonly blockSize: number;
  readonly seed: string | null | undefined;
}

export function blockSizeOf(value: unknown): number {
  return integer('blockSize', value, 1, MAX_BLOCK_SIZE);
}

/** Checks what all prompts of a call share. */
export function hashPlan(options: HashOptions): HashPlan {
  const { blockSize, algorithm = 'sha256_cbor', seed } = optionsObject('options', options);
  if (seed !== undefined && seed !== null && typeof seed !== 'string') {
    throw errors.invalidArgument('seed', seed, 'a string (the value of PYTHONHASHSEED) or null');
  }
  const name = oneOf('algorithm', algorithm, NAMES);
  return { ...ALGORITHMS[name], algorithm: name, blockSize: blockSizeOf(blockSize), seed };
}

const KINDS = { sha256: 0, 'xxh3-128': 1, 'xxh3-64': 2 } as const;
const DIGEST_WIDTH = [32, 16, 8];
const DIGEST_ROOM = 512;

export type DigestKind = keyof typeof KINDS;

/** Digest of any bytes on the scratch instance. */
export function digestBytes(kind: DigestKind, bytes: Uint8Array, seed = 0n): Uint8Array {
  const core = scratch<HashExports>();
  const at = core.heap;
  const message = at + DIGEST_ROOM;
  core.reserve(message + bytes.length + DIGEST_ROOM, 'bytes');
  core.u8.set(bytes, message);
  core.exports.digest(KINDS[kind], message, bytes.length, seed, at + 256, at);
  return core.u8.slice(at + 256, at + 256 + DIGEST_WIDTH[KINDS[kind]]);
}

export const digestKinds = Object.keys(KINDS) as DigestKind[];

let lastNone: { algorithm: HashAlgorithm; seed: string; hash: Uint8Array } | undefined;

/** NONE_HASH, the parent of first blocks: the digest of the serialized seed (init_none_hash of kv_cache_utils.py). */
export function noneHashOf({ algorithm, serializer, digest, seed }: HashPlan): Uint8Array {
  if (digest === 1 && (seed === undefined || seed === null)) {
    throw errors.undefinedHash(
      'seed',
      seed,
      `without PYTHONHASHSEED vLLM draws a random NONE_HASH per process for ${algorithm}; give the instances a PYTHONHASHSEED and pass it as seed, or pass a parent`,
    );
  }
  const text = seed ?? DEFAULT_SEED;
  if (lastNone?.algorithm === algorithm && lastNone.seed === text) return lastNone.hash;
  const hash = digestBytes(digest === 0 ? 'sha256' : 'xxh3-128', serializer.seed(text));
  lastNone = { algorithm, seed: text, hash };
  return hash;
}

/** The parent of a chain's first block: what the caller names, else NONE_HASH. */
export function parentOf(argument: string, parent: unknown, plan: HashPlan): Uint8Array {
  if (parent === undefined || parent === null) return noneHashOf(plan);
  return hashBytes(argument, parent, plan.width);
}

/** One hash given as bytes or hex: a copy, which nobody changes before it is used. */
export function hashBytes(argument: string, value: unknown, width: number): Uint8Array {
  const bytes = typeof value === 'string' ? fromHex(value) : value;
  if (!(bytes instanceof Uint8Array) || bytes.length !== width) {
    throw errors.invalidArgument(argument, value, `${width} bytes or ${2 * width} hex digits`);
  }
  return new Uint8Array(bytes);
}
