/** What extra keys may hold, and their checks: shared by both serializations (cbor.ts, pickle.ts). */
import { errors } from '../errors.js';
import { fromHex } from '../hex.js';
import { utf8, type Writer } from './writer.js';

/** Bytes, where extra keys come from JSON. */
export interface BytesHex {
  bytes_hex: string;
}

/** One value of extra keys. A list stands for Python's tuple, null for None. */
export type ExtraKey = string | number | bigint | null | Uint8Array | BytesHex | readonly ExtraKey[];

/** How vLLM serializes what it hashes. */
export interface Serializer {
  /** Writes the extra keys of a block, named `argument` in errors, as they stand behind its parent and tokens. */
  extraKeys(out: Writer, argument: string, keys: readonly ExtraKey[]): void;
  /** A whole message that is one string: what NONE_HASH is the digest of. */
  seed(text: string): Uint8Array;
}

const MAX_DEPTH = 32;

export function checkDepth(argument: string, value: unknown, depth: number): void {
  if (depth > MAX_DEPTH) throw errors.invalidArgument(argument, value, `nested at most ${MAX_DEPTH} deep`);
}

/** The UTF-8 of a string. Half of a surrogate pair has none. */
export function textOf(argument: string, text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) throw errors.invalidArgument(argument, text, 'text without lone surrogates');
  return utf8(text);
}

export function integerOf(argument: string, value: number | bigint): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw errors.invalidArgument(argument, value, 'an integer (a bigint above 2^53 - 1)');
  }
  return BigInt(value);
}

/** The bytes of what is neither text, nor an integer, nor null, nor a list. */
export function bytesOf(argument: string, value: Uint8Array | BytesHex): Uint8Array {
  if (value instanceof Uint8Array) return value;
  const hex = typeof value === 'object' ? value.bytes_hex : undefined;
  if (hex === undefined) {
    throw errors.invalidArgument(argument, value, 'a string, an integer, bytes, null or a list of these');
  }
  const bytes = typeof hex === 'string' ? fromHex(hex) : undefined;
  if (!bytes) throw errors.invalidArgument(`${argument}.bytes_hex`, hex, 'a string of hex digits');
  return bytes;
}
