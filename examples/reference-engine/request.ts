/**
 * A request as the scheduler sees it: its tokens, their hashes, the blocks that hold their KV, and how much of it is
 * computed. It is also the `KvRequest` that connectors get, and stays current while the request lives.
 */
import {
  blockHashes,
  type ExtraKeys,
  extraKeys,
  type HashOptions,
  type KvRequest,
  type KvTransferParams,
} from 'mooncake-ts';

/**
 * waiting: for its turn; it may own blocks already, whose load has ended. loading: for a connector, which fills its blocks
 * while others run. running: part of every step.
 */
export type RequestState = 'waiting' | 'loading' | 'running' | 'finished';

export interface RequestOptions {
  requestId: string;
  prompt: Uint32Array;
  maxTokens: number;
  ignoreEos?: boolean;
  /** Requests share KV with requests of the same salt only. */
  cacheSalt?: string;
  kvTransferParams?: KvTransferParams;
  hash: HashOptions;
}

export class Request implements KvRequest {
  readonly requestId: string;
  readonly numPromptTokens: number;
  readonly maxTokens: number;
  readonly ignoreEos: boolean;
  readonly kvTransferParams?: KvTransferParams;
  state: RequestState = 'waiting';
  /** Block ids, in the order of the tokens. */
  blocks: number[] = [];
  /** Tokens whose KV is in the blocks: computed, found, or (while loading) expected. */
  numComputed = 0;
  /** Blocks, from the first on, that other requests may find by their hash. */
  shared = 0;
  /** Its blocks were taken from it; when it starts again it resumes. */
  preempted = false;
  /** Connectors may be asked for its KV; not again once they failed it. */
  mayLoad = true;
  /** When a load that goes on is given up, in milliseconds of the scheduler's clock. */
  loadDeadline = Number.POSITIVE_INFINITY;
  /** Tokens of the prompt that the engine's own cache and the connector had when the request first started. */
  readonly cached = { local: 0, external: 0 };
  readonly #tokens: Uint32Array;
  #length: number;
  readonly #hash: HashOptions;
  readonly #cacheSalt: string | undefined;
  readonly #hashes: string[] = [];

  constructor({ requestId, prompt, maxTokens, ignoreEos, cacheSalt, kvTransferParams, hash }: RequestOptions) {
    this.requestId = requestId;
    this.numPromptTokens = prompt.length;
    this.maxTokens = maxTokens;
    this.ignoreEos = ignoreEos ?? false;
    this.kvTransferParams = kvTransferParams;
    this.#tokens = new Uint32Array(prompt.length + maxTokens);
    this.#tokens.set(prompt);
    this.#length = prompt.length;
    this.#hash = hash;
    this.#cacheSalt = cacheSalt;
  }

  /** Prompt and output so far; a view. */
  get tokens(): Uint32Array {
    return this.#tokens.subarray(0, this.#length);
  }

  /** Number of tokens, prompt and output. */
  get length(): number {
    return this.#length;
  }

  get output(): Uint32Array {
    return this.#tokens.subarray(this.numPromptTokens, this.#length);
  }

  get extraKeys(): ExtraKeys | undefined {
    if (this.#cacheSalt === undefined) return undefined;
    return extraKeys({ tokens: this.#length, blockSize: this.#hash.blockSize, cacheSalt: this.#cacheSalt });
  }

  /** The hashes of the full blocks, in hex. */
  get hashes(): readonly string[] {
    const { blockSize } = this.#hash;
    const done = this.#hashes.length;
    if ((done + 1) * blockSize <= this.#length) {
      const added = blockHashes(this.tokens.subarray(done * blockSize), {
        ...this.#hash,
        parent: this.#hashes.at(-1),
        extraKeys: this.extraKeys?.slice(done),
      });
      this.#hashes.push(...added.toHex());
    }
    return this.#hashes;
  }

  append(token: number): void {
    this.#tokens[this.#length++] = token;
  }
}
