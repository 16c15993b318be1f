/** Token ids on their way into linear memory: from 0 to 2^32 - 1, whatever holds them. */
import { typedArray } from '../check.js';
import { errors } from '../errors.js';
import type { Core } from '../wasm.js';
import type { HashExports } from './plan.js';

/** Token ids. A negative one, or one that is no integer, is refused. */
export type Tokens = Int32Array | Uint32Array | readonly number[];

const EXPECTED = 'a token id, an integer from 0 to 4294967295';

export function isTokens(value: unknown): value is Tokens {
  return value instanceof Int32Array || value instanceof Uint32Array || Array.isArray(value);
}

export function checkTokens(argument: string, value: unknown): Tokens {
  if (Array.isArray(value)) return value;
  const expected = 'an Int32Array, a Uint32Array or an array of token ids';
  return typedArray<Int32Array | Uint32Array>(argument, value, isTokens(value), expected);
}

/** Copies tokens `from` to `to` to address `at` (a multiple of 4), checked. */
export function copyTokens(
  core: Core<HashExports>,
  argument: string,
  tokens: Tokens,
  from: number,
  to: number,
  at: number,
): void {
  const word = at / 4;
  if (tokens instanceof Uint32Array) {
    core.u32.set(tokens.subarray(from, to), word);
    return;
  }
  if (tokens instanceof Int32Array) {
    core.i32.set(tokens.subarray(from, to), word);
    if (!core.exports.anyNegative(at, to - from)) return;
    const bad = tokens.findIndex((token, i) => i >= from && token < 0);
    throw errors.invalidArgument(`${argument}[${bad}]`, tokens[bad], EXPECTED);
  }
  const { u32 } = core;
  for (let i = from; i < to; i++) {
    const token = tokens[i];
    if (typeof token !== 'number' || token >>> 0 !== token)
      throw errors.invalidArgument(`${argument}[${i}]`, token, EXPECTED);
    u32[word + i - from] = token;
  }
}
