/**
 * Replays a trace against one cache of a given capacity and policy. The rule: a hit is the leading run of the prompt's
 * blocks that are present; then all blocks of the prompt are touched, first to last, and those that were absent are
 * taken in, each evicting one block when the cache is full. The hit rate is weighted by blocks: leading runs over blocks.
 *
 * Which blocks are present is asked of the prefix index, as a router or a store asks it: one match per prompt. The
 * policy knows slots only (src/eviction); this file keeps the two in step. The index hears of a request once, when it is
 * over: its chain is inserted and what is not held any more is removed.
 */
import { oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { PrefixIndex } from '../core/prefix.js';
import type { EvictionPolicy } from '../eviction/policy.js';
import { type PolicyName, policyNames, REPLAY_POLICIES } from './policies.js';
import type { Trace } from './trace.js';

export interface ReplayOptions {
  policy: PolicyName;
  /** Capacity in blocks; Infinity for a cache that never evicts. */
  blocks: number;
  /** Of the policy `store`: share of the capacity that it fills, and of the blocks that go at a time. 0.90 and 0.05. */
  evictionHighWatermark?: number;
  evictionRatio?: number;
  signal?: AbortSignal;
  /** Called now and then with the share of requests that are done. */
  onProgress?: (done: number) => void;
}

export interface ReplayResult {
  policy: PolicyName;
  blocks: number;
  /** Leading runs over all blocks of all prompts, 0 to 1. */
  hitRate: number;
  hitBlocks: number;
  totalBlocks: number;
  requests: number;
  uniqueBlocks: number;
  evictions: number;
  /** Wall time of this replay. */
  seconds: number;
}

/** Requests between two looks at the clock. */
const STRIDE = 256;
/** Milliseconds of work after which the event loop gets a turn. */
const SLICE = 30;

/**
 * Replays a trace against one cache; the rule is above.
 *
 * @throws ERR_INVALID_ARGUMENT for an unknown policy or a capacity that is no number of blocks; ERR_ABORTED
 */
export async function replay(trace: Trace, options: ReplayOptions): Promise<ReplayResult> {
  if (!(trace?.blocks instanceof Uint32Array)) {
    throw errors.invalidArgument('trace', trace, 'a trace of readTrace, parseTrace, generateTrace or a TraceBuilder');
  }
  if (typeof options !== 'object' || options === null) {
    throw errors.invalidArgument('options', options, 'an object with policy and blocks');
  }
  const { policy, blocks, signal, onProgress } = options;
  oneOf('policy', policy, policyNames);
  if (blocks !== Infinity && !(Number.isInteger(blocks) && blocks >= 1)) {
    throw errors.invalidArgument('blocks', blocks, 'a number of blocks of at least 1, or Infinity');
  }
  const started = performance.now();
  for (const name of ['evictionHighWatermark', 'evictionRatio'] as const) {
    const value = options[name] ?? 1;
    if (!(typeof value === 'number' && value > 0 && value <= 1)) {
      throw errors.invalidArgument(name, value, 'a number above 0, at most 1');
    }
  }
  const cache = new Cache(trace, options);
  let hitBlocks = 0;
  let slice = started;
  for (let request = 0; request < trace.requests; request++) {
    hitBlocks += cache.request(request);
    if (request % STRIDE !== 0) continue;
    if (signal?.aborted) throw errors.aborted(signal.reason);
    if (performance.now() - slice < SLICE) continue;
    onProgress?.(request / trace.requests);
    await new Promise((resolve) => setImmediate(resolve));
    slice = performance.now();
  }
  const totalBlocks = trace.blocks.length;
  return {
    policy,
    blocks,
    hitRate: totalBlocks === 0 ? 0 : hitBlocks / totalBlocks,
    hitBlocks,
    totalBlocks,
    requests: trace.requests,
    uniqueBlocks: trace.unique,
    evictions: cache.evictions,
    seconds: (performance.now() - started) / 1000,
  };
}

/** The cache: what the policy holds, and the same in the index. */
class Cache {
  evictions = 0;
  readonly #trace: Trace;
  readonly #capacity: number;
  readonly #policy: EvictionPolicy;
  readonly #index = new PrefixIndex({ keyWidth: 8 });
  readonly #instance = this.#index.addInstance('cache');
  /** The index's answer: leading blocks of the one instance. */
  readonly #run = new Uint32Array(1);
  readonly #held: Uint8Array;
  #size = 0;
  /** Blocks that left in the current request; one may be named twice, or have come back. */
  readonly #left: number[] = [];
  #gone: BigUint64Array;

  constructor(trace: Trace, options: ReplayOptions) {
    const { policy, blocks: capacity, evictionHighWatermark, evictionRatio } = options;
    this.#trace = trace;
    this.#capacity = capacity;
    const store = { evictionHighWatermark, evictionRatio };
    this.#policy = REPLAY_POLICIES[policy]({ slots: trace.unique, capacity, trace, ...store });
    this.#held = new Uint8Array(trace.unique);
    this.#gone = new BigUint64Array(64);
  }

  /** Serves one request; how many of its blocks were a hit. */
  request(request: number): number {
    const { blocks, offsets, chains } = this.#trace;
    const begin = offsets[request];
    const end = offsets[request + 1];
    this.#index.matchInto(chains.subarray(begin, end), this.#run);
    const hits = this.#run[0];
    let kept = begin;
    for (let at = begin; at < end; at++) if (this.#use(blocks[at])) kept = at + 1;
    if (kept > begin + hits) this.#index.insert(this.#instance, chains.subarray(begin, kept));
    if (this.#left.length > 0) this.#forget();
    return hits;
  }

  /** Touches a block or takes it in. False when the policy declined it. */
  #use(block: number): boolean {
    if (this.#held[block]) {
      this.#policy.touch(block);
      return true;
    }
    const surplus = this.#policy.surplus?.(this.#size) ?? (this.#size === this.#capacity ? 1 : 0);
    for (let gone = 0; gone < surplus; gone++) {
      const victim = this.#policy.evict(block);
      this.#left.push(victim);
      if (victim === block) return false;
      this.#held[victim] = 0;
      this.#size--;
      this.evictions++;
    }
    this.#size++;
    this.#held[block] = 1;
    this.#policy.insert(block);
    return true;
  }

  #forget(): void {
    const { hashes } = this.#trace;
    const left = this.#left;
    if (left.length > this.#gone.length) this.#gone = new BigUint64Array(2 * left.length);
    let count = 0;
    for (const block of left) if (!this.#held[block]) this.#gone[count++] = hashes[block];
    if (count > 0) this.#index.remove(this.#instance, this.#gone.subarray(0, count));
    left.length = 0;
  }
}
