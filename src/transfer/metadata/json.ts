/**
 * JSON from strangers. Addresses and lengths are 64-bit integers on Mooncake's wire, and JSON.parse rounds those above
 * 2 ** 53: integers of 16 digits and more come out as bigints instead.
 */
import { errors } from '../../core/errors.js';

/** A string, whole or cut off, or a long integer outside of one. It always matches to its end: no backtracking. */
const STRINGS_AND_LONG_INTEGERS = /"(?:[^"\\]+|\\[\s\S]?)*"?|(?<![\d.eE+-])-?[1-9]\d{15,}(?![\d.eE])/g;
/** In front of a long integer that was made a string; cannot stand raw in JSON, and must not stand escaped either. */
const MARK = '\\u0000int:';
const MARKED = '\0int:';

export type Json = null | boolean | number | bigint | string | Json[] | { [key: string]: Json };

/** Throws ERR_PROTOCOL: `what` says what the text should have been. */
export function parseJson(what: string, text: string): Json {
  try {
    const marked = /\d{16}/.test(text)
      ? text.replace(STRINGS_AND_LONG_INTEGERS, (match) => (match[0] === '"' ? match : `"${MARK}${match}"`))
      : text;
    return JSON.parse(marked, (_, value) =>
      typeof value === 'string' && value.startsWith(MARKED) ? BigInt(value.slice(MARKED.length)) : value,
    );
  } catch {
    throw errors.protocol(`${what} is no JSON`, text.slice(0, 200));
  }
}

export function isObject(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An unsigned integer of at most 64 bits, exact; undefined where the value is none. */
export function u64(value: Json | undefined): bigint | undefined {
  const exact =
    typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : typeof value === 'bigint' ? value : -1n;
  return exact >= 0n && exact < 1n << 64n ? exact : undefined;
}

/** A number of bytes: an integer from 1 to 2 ** 53 - 1. */
export function size(value: Json | undefined): number | undefined {
  const exact = u64(value);
  return exact !== undefined && exact > 0n && exact <= Number.MAX_SAFE_INTEGER ? Number(exact) : undefined;
}
