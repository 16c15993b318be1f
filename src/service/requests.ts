/** Requests as an engine announces them: their tokens grow with what calls append. */

import type { KvRequest, KvTransferParams } from '../connector/api.js';
import { errors } from '../core/errors.js';
import type { ExtraKeys } from '../core/hash/into.js';

const NO_TOKENS = new Uint32Array(0);

/** Token ids of binary, u32 little-endian; a copy. Nil: none. */
export function tokensOf(argument: string, value: unknown): Uint32Array {
  if (value === null || value === undefined) return NO_TOKENS;
  if (!(value instanceof Uint8Array) || value.length % 4 !== 0) {
    throw errors.invalidArgument(argument, value, 'binary of 32-bit token ids');
  }
  return new Uint32Array(value.slice().buffer);
}

export class ServiceRequest implements KvRequest {
  readonly requestId: string;
  readonly numPromptTokens: number;
  readonly kvTransferParams: KvTransferParams | undefined;
  #extraKeys: ExtraKeys | undefined;
  #memory: Uint32Array;
  #length: number;

  constructor(
    requestId: string,
    numPromptTokens: number,
    tokens: Uint32Array,
    extraKeys?: ExtraKeys,
    params?: KvTransferParams,
  ) {
    this.requestId = requestId;
    this.numPromptTokens = numPromptTokens;
    this.#extraKeys = extraKeys;
    this.kvTransferParams = params;
    this.#memory = tokens;
    this.#length = tokens.length;
  }

  get tokens(): Uint32Array {
    return this.#memory.subarray(0, this.#length);
  }

  /** Of full blocks; those of blocks behind them are none, or what `append` brings. */
  get extraKeys(): ExtraKeys | undefined {
    return this.#extraKeys;
  }

  append(tokens: Uint32Array, extraKeys?: ExtraKeys): void {
    if (extraKeys !== undefined) this.#extraKeys = [...(this.#extraKeys ?? []), ...extraKeys];
    if (tokens.length === 0) return;
    const length = this.#length + tokens.length;
    if (length > this.#memory.length) {
      const memory = new Uint32Array(Math.max(length, 2 * this.#memory.length));
      memory.set(this.tokens);
      this.#memory = memory;
    }
    this.#memory.set(tokens, this.#length);
    this.#length = length;
  }
}
