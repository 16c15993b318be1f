/** Token ids on their way into linear memory: from 0 to 2^32 - 1, whatever holds them. */
import { integer, typedArray } from '../check.js';
import { errors } from '../errors.js';
import type { Core } from '../wasm.js';
import type { HashExports } from './plan.js';

/** Token ids. A negative one, or one that is no integer, is refused. */
export type Tokens = Int32Array | Uint32Array | readonly number[];

/** Tokens that reading cannot change. */
export type HeldTokens = Int32Array | Uint32Array;

const MAX_LENGTH = 2 ** 32 - 1;
const EXPECTED = 'a token id, an integer from 0 to 4294967295';

export function isTokens(value: unknown): value is Tokens {
  return value instanceof Int32Array || value instanceof Uint32Array || Array.isArray(value);
}

export function checkTokens(argument: string, value: unknown): Tokens {
  if (Array.isArray(value)) return value;
  const expected = 'an Int32Array, a Uint32Array or an array of token ids';
  return typedArray<Int32Array | Uint32Array>(argument, value, isTokens(value), expected);
}

function refused(argument: string, i: number, value: unknown) {
  return errors.invalidArgument(`${argument}[${i}]`, value, EXPECTED);
}

/**
 * Tokens as a call holds them: typed arrays as they are, plain arrays read once and checked. Reading an array may run
 * code of the caller, which may hash too; so it comes before anything is put into the scratch memory. Of a typed array
 * the rest that fills no block is checked here, blocks are where they are copied.
 */
export function holdTokens(argument: string, value: unknown, blockSize: number): HeldTokens {
  const tokens = checkTokens(argument, value);
  if (tokens instanceof Uint32Array || tokens instanceof Int32Array) {
    const { length } = tokens;
    for (let i = length - (length % blockSize); i < length; i++)
      if (tokens[i] < 0) throw refused(argument, i, tokens[i]);
    return tokens;
  }
  const length = integer(`${argument}.length`, tokens.length, 0, MAX_LENGTH);
  const held = allocate(argument, length);
  for (let i = 0; i < length; i++) {
    const token = tokens[i];
    if (typeof token !== 'number' || token >>> 0 !== token) throw refused(argument, i, token);
    held[i] = token;
  }
  return held;
}

function allocate(argument: string, length: number): Uint32Array {
  try {
    return new Uint32Array(length);
  } catch {
    throw errors.outOfMemory(argument, 4 * length);
  }
}

/** Copies tokens `from` to `to` to address `at` (a multiple of 4), checked. */
export function copyTokens(
  core: Core<HashExports>,
  argument: string,
  tokens: HeldTokens,
  from: number,
  to: number,
  at: number,
): void {
  // A resizable buffer may have shrunk since the call began, by a getter of another argument.
  if (tokens.length < to)
    throw errors.invalidArgument(argument, tokens, `at least ${to} tokens long, as it was before`);
  const word = at / 4;
  if (tokens instanceof Uint32Array) {
    core.u32.set(tokens.subarray(from, to), word);
    return;
  }
  core.i32.set(tokens.subarray(from, to), word);
  if (!core.exports.anyNegative(at, to - from)) return;
  // Looked up in the copy: shared memory may have changed again.
  const copied = core.i32.subarray(word, word + to - from);
  const bad = copied.findIndex((token) => token < 0);
  throw refused(argument, from + bad, copied[bad]);
}
