/**
 * Object keys, packed: all keys of a batch in one buffer, so that a batch crosses into the core, a socket or a worker
 * without an object for each key. A key is 1 to 65,535 bytes; text is UTF-8.
 */
import { integer, isWellFormed } from './check.js';
import { errors, show } from './errors.js';

export type Key = string | Uint8Array;

/** Longest key, in bytes. */
export const MAX_KEY_BYTES = 65535;

const encoder = new TextEncoder();
// A byte order mark is part of a key like any other character.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The bytes of one key. Throws ERR_INVALID_ARGUMENT, naming `argument`, for what is no key. */
export function keyBytes(argument: string, key: unknown): Uint8Array {
  // UTF-8 writes every lone surrogate as U+FFFD: different texts would be one key, and one be served the other's bytes.
  if (typeof key === 'string' && !isWellFormed(key)) {
    throw errors.invalidArgument(argument, key, 'a string without lone surrogates');
  }
  const bytes = typeof key === 'string' ? encoder.encode(key) : key;
  if (!(bytes instanceof Uint8Array) || bytes.length === 0 || bytes.length > MAX_KEY_BYTES) {
    throw errors.invalidArgument(argument, key, `a string or bytes, 1 to ${MAX_KEY_BYTES} bytes long`);
  }
  return bytes;
}

export class Keys {
  /** Number of keys. */
  readonly length: number;
  /** The keys, one after another. */
  readonly bytes: Uint8Array;
  /** `length + 1` offsets: key `i` is `bytes[offsets[i]]` up to `bytes[offsets[i + 1]]`. */
  readonly offsets: Uint32Array;

  /** Takes the arrays as they are, without a copy. Throws ERR_INVALID_ARGUMENT where they do not describe keys. */
  constructor(bytes: Uint8Array, offsets: Uint32Array) {
    if (!(bytes instanceof Uint8Array)) throw errors.invalidArgument('bytes', bytes, 'a Uint8Array');
    if (!(offsets instanceof Uint32Array) || offsets.length === 0) {
      throw errors.invalidArgument('offsets', offsets, 'a Uint32Array of at least one element');
    }
    const length = offsets.length - 1;
    if (offsets[0] !== 0 || offsets[length] !== bytes.length) {
      throw errors.invalidArgument('offsets', offsets, `from 0 to the ${bytes.length} bytes of the keys`);
    }
    for (let i = 0; i < length; i++) {
      const size = offsets[i + 1] - offsets[i];
      if (!(size >= 1 && size <= MAX_KEY_BYTES)) {
        throw errors.invalidArgument(`offsets[${i + 1}]`, offsets[i + 1], `1 to ${MAX_KEY_BYTES} above the one before`);
      }
    }
    this.length = length;
    this.bytes = bytes;
    this.offsets = offsets;
  }

  /** Packs keys. Throws ERR_INVALID_ARGUMENT naming the first that is none. */
  static from(keys: readonly Key[] | Keys): Keys {
    if (keys instanceof Keys) return keys;
    if (!Array.isArray(keys)) throw errors.invalidArgument('keys', keys, 'an array of keys');
    const parts = keys.map((key, i) => keyBytes(`keys[${i}]`, key));
    const offsets = new Uint32Array(parts.length + 1);
    let total = 0;
    for (const [i, part] of parts.entries()) {
      total += part.length;
      if (total > 0xffff_ffff) throw errors.invalidArgument('keys', show(keys), 'below 4 GiB together');
      offsets[i + 1] = total;
    }
    const bytes = new Uint8Array(total);
    for (const [i, part] of parts.entries()) bytes.set(part, offsets[i]);
    return new Keys(bytes, offsets);
  }

  /** The bytes of key `i`, a view. */
  at(i: number): Uint8Array {
    integer('i', i, 0, this.length - 1);
    return this.bytes.subarray(this.offsets[i], this.offsets[i + 1]);
  }

  /** Key `i` as text; bytes that are not UTF-8 show as U+FFFD. */
  text(i: number): string {
    return decoder.decode(this.at(i));
  }
}
