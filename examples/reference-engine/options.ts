/** What an engine is made from, and what a request may ask for. */
import { blockHashes, type HashOptions, type KvConnector, type KvRole, type KvTransferParams } from 'mooncake-ts';
import { integer, invalid } from './checks.js';
import { type ModelConfig, modelConfig } from './config.js';
import { Model } from './model.js';
import { encode, VOCABULARY } from './tokenizer.js';

export interface EngineOptions {
  /** A model (several engines of a process may share it), or what differs from the default shape. */
  model?: Model | Partial<ModelConfig>;
  /** Of the weights, where `model` is no Model. Default 1. */
  seed?: number;
  /** Blocks of the KV cache. Default 256. */
  blocks?: number;
  /** Tokens per block. Default 16. */
  blockSize?: number;
  /** Ranks over which the heads are cut. Default 1. */
  tensorParallelSize?: number;
  /** Tokens computed in one step. Default 256. */
  maxBatchedTokens?: number;
  /** Requests that run at once. Default 32. */
  maxRequests?: number;
  connector?: KvConnector;
  /** Default: a new one each time. */
  engineId?: string;
  /** Default `both`. */
  role?: KvRole;
  /** How blocks are named; all engines that share must agree. Default sha256_cbor with seed "0". */
  hash?: Omit<HashOptions, 'blockSize'>;
  /** How long a connector may look for a request's KV before it is computed. Default 5,000 ms. */
  lookupTimeoutMs?: number;
  /** How long an asynchronous load may take before the KV is computed. Default 30,000 ms. */
  loadTimeoutMs?: number;
  /** How long a step may wait for a connector; beyond that the engine fails. Default 60,000 ms. */
  stepTimeoutMs?: number;
}

export interface GenerateOptions {
  /** Tokens to generate at most. Default 16. */
  maxTokens?: number;
  /** Goes on after an end-of-text token. Default false. */
  ignoreEos?: boolean;
  /** Requests share KV with requests of the same salt only. */
  cacheSalt?: string;
  kvTransferParams?: KvTransferParams;
  signal?: AbortSignal;
  /** Default: the engine's id and a number. */
  requestId?: string;
}

const MAX_BLOCKS = 1 << 20;
const MAX_TIMEOUT_MS = 86_400_000;

const ROLES: readonly KvRole[] = ['producer', 'consumer', 'both'];

/** The options, whole. Throws ERR_INVALID_ARGUMENT naming the first that does not fit, ERR_UNDEFINED_HASH. */
export function engineOptions(options: EngineOptions) {
  const { model, seed = 1, connector, role = 'both', engineId = `engine-${crypto.randomUUID()}` } = options;
  const blockSize = integer('blockSize', options.blockSize ?? 16, 1, 4096);
  const timeout = (name: 'lookupTimeoutMs' | 'loadTimeoutMs' | 'stepTimeoutMs', usual: number) =>
    integer(name, options[name] ?? usual, 1, MAX_TIMEOUT_MS);
  if (!ROLES.includes(role)) throw invalid('role', role, `one of ${ROLES.join(', ')}`);
  if (typeof engineId !== 'string') throw invalid('engineId', engineId, 'a string');
  const hash: HashOptions = { algorithm: 'sha256_cbor', seed: '0', ...options.hash, blockSize };
  // Options that cannot hash are refused now, not in the middle of a step.
  blockHashes([], hash);
  return {
    model: model instanceof Model ? model : new Model(modelConfig(model), integer('seed', seed, 0, 2 ** 31 - 1)),
    blocks: integer('blocks', options.blocks ?? 256, 1, MAX_BLOCKS),
    blockSize,
    tensorParallelSize: integer('tensorParallelSize', options.tensorParallelSize ?? 1, 1, 64),
    maxBatchedTokens: integer('maxBatchedTokens', options.maxBatchedTokens ?? 256, 1, 65_536),
    maxRequests: integer('maxRequests', options.maxRequests ?? 32, 1, 65_536),
    connector,
    engineId,
    role,
    hash,
    lookupTimeoutMs: timeout('lookupTimeoutMs', 5_000),
    loadTimeoutMs: timeout('loadTimeoutMs', 30_000),
    stepTimeoutMs: timeout('stepTimeoutMs', 60_000),
  };
}

/** The tokens of a prompt. Throws ERR_INVALID_ARGUMENT naming the first that the model does not know. */
export function promptTokens(prompt: string | ArrayLike<number>): Uint32Array {
  if (typeof prompt === 'string') return encode(prompt);
  if (typeof prompt !== 'object' || prompt === null || !(prompt.length >= 1)) {
    throw invalid('prompt', prompt, 'a text, or at least one token');
  }
  return Uint32Array.from(prompt, (token, i) => integer(`prompt[${i}]`, token, 0, VOCABULARY - 1));
}
