/**
 * Serializes seeds and extra keys as vLLM does: cbor2 with canonical=True (RFC 8949), or CPython's pickle, protocol 5.
 * Tokens are encoded in the core (assembly/hash/encode.ts); what is here is rare or short.
 *
 * Pickle writes an object that it has met before as a reference, and "met before" means the same object, not an equal
 * one. So its bytes are a function of the values only where no string or bytes appears twice. vLLM's own tags are the
 * exception: they are constants of its code, always the same object. Any other repetition is refused.
 */
import { errors } from '../errors.js';
import { fromHex, toHex } from '../hex.js';
import { Writer } from './writer.js';

/** Bytes, where extra keys come from JSON. */
export interface BytesHex {
  bytes_hex: string;
}

/** One value of extra keys. A list stands for Python's tuple, null for None. */
export type ExtraKey = string | number | bigint | null | Uint8Array | BytesHex | readonly ExtraKey[];

/** The tags of vLLM's extra keys (generate_block_hash_extra_keys). */
const TAGS = new Set(['lora', 'mm', 'cache_salt', 'prompt_embeds']);
const MAX_DEPTH = 32;
const EXPECTED = 'a string, an integer, bytes, null or a list of these';

function refuse(argument: string, value: unknown, expected = EXPECTED): never {
  throw errors.invalidArgument(argument, value, expected);
}

/** The bytes of a string. Half of a surrogate pair has no UTF-8. */
export function encodeText(argument: string, text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) refuse(argument, text, 'text without lone surrogates');
  return Writer.utf8(text);
}

function integerOf(argument: string, value: number | bigint): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    refuse(argument, value, 'an integer (a bigint above 2^53 - 1)');
  }
  return BigInt(value);
}

function bytesOf(argument: string, value: object): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  const hex = (value as Partial<BytesHex>).bytes_hex;
  if (hex === undefined) return undefined;
  if (typeof hex !== 'string') refuse(`${argument}.bytes_hex`, hex, 'a hex string');
  return fromHex(hex) ?? refuse(`${argument}.bytes_hex`, hex, 'a hex string');
}

/** Big-endian bytes of a non-negative integer, without leading zeros. */
function magnitude(value: bigint): Uint8Array {
  const hex = value.toString(16);
  return fromHex(hex.length % 2 === 0 ? hex : `0${hex}`)!;
}

/** A serialization of one tuple of extra keys, or of a seed. */
export interface Serializer {
  /** Writes the extra keys of a block, named `argument` in errors, behind its parent and tokens. */
  extraKeys(out: Writer, argument: string, keys: readonly ExtraKey[]): void;
  /** A whole message that is one string: what NONE_HASH is the hash of. */
  seed(text: string): Uint8Array;
}

/** The initial byte of a CBOR item of type `major` with its argument, in the shortest form. */
function cborHead(out: Writer, major: number, argument: number | bigint): void {
  const type = major << 5;
  if (argument < 24) out.u8(type | Number(argument));
  else if (argument < 0x100) out.u8(type | 24, Number(argument));
  else if (argument < 0x10000) {
    out.u8(type | 25);
    out.big(argument, 2);
  } else if (argument < 0x100000000) {
    out.u8(type | 26);
    out.big(argument, 4);
  } else {
    out.u8(type | 27);
    out.big(argument, 8);
  }
}

function cborBytes(out: Writer, major: 2 | 3, bytes: Uint8Array): void {
  cborHead(out, major, bytes.length);
  out.append(bytes);
}

function cborInteger(out: Writer, value: bigint): void {
  const negative = value < 0n;
  const rest = negative ? -1n - value : value;
  if (rest < 1n << 64n) return cborHead(out, negative ? 1 : 0, rest);
  out.u8(negative ? 0xc3 : 0xc2);
  cborBytes(out, 2, magnitude(rest));
}

function cborValue(out: Writer, argument: string, value: ExtraKey, depth: number): void {
  if (depth > MAX_DEPTH) refuse(argument, value, `nested at most ${MAX_DEPTH} deep`);
  if (typeof value === 'string') return cborBytes(out, 3, encodeText(argument, value));
  if (typeof value === 'number' || typeof value === 'bigint') return cborInteger(out, integerOf(argument, value));
  if (value === null) return out.u8(0xf6);
  if (Array.isArray(value)) {
    cborHead(out, 4, value.length);
    for (let i = 0; i < value.length; i++) cborValue(out, `${argument}[${i}]`, value[i], depth + 1);
    return;
  }
  const bytes = typeof value === 'object' ? bytesOf(argument, value) : undefined;
  cborBytes(out, 2, bytes ?? refuse(argument, value));
}

export const cbor: Serializer = {
  extraKeys: (out, argument, keys) => cborValue(out, argument, keys, 0),
  seed(text) {
    const out = new Writer();
    cborBytes(out, 3, encodeText('seed', text));
    return out.bytes;
  },
};

const MEMOIZE = 0x94;

/** BINUNICODE or BINBYTES in the short form where it fits, memoized. */
function pickleBytes(out: Writer, short: number, long: number, bytes: Uint8Array): void {
  if (bytes.length < 0x100) out.u8(short, bytes.length);
  else {
    out.u8(long);
    out.little(bytes.length, 4);
  }
  out.append(bytes);
  out.u8(MEMOIZE);
}

function pickleInteger(out: Writer, value: bigint): void {
  if (value >= 0n && value < 0x100n) out.u8(0x4b, Number(value));
  else if (value >= 0n && value < 0x10000n) {
    out.u8(0x4d);
    out.little(value, 2);
  } else if (value === BigInt.asIntN(32, value)) {
    out.u8(0x4a);
    out.little(BigInt.asUintN(32, value), 4);
  } else {
    // LONG1 or LONG4: the shortest two's complement, little-endian.
    let size = 5;
    while (value !== BigInt.asIntN(8 * size, value)) size++;
    if (size < 0x100) out.u8(0x8a, size);
    else {
      out.u8(0x8b);
      out.little(size, 4);
    }
    out.little(BigInt.asUintN(8 * size, value), size);
  }
}

/** One block's pickle behind its tokens; the parent and the tuple of tokens are the first two entries of the memo. */
class PickledKeys {
  #memo = 2;
  #seen = new Map<string, { index: number; tag: boolean }>();

  constructor(readonly out: Writer) {}

  tuple(argument: string, items: readonly ExtraKey[], depth: number): void {
    const { out } = this;
    if (depth > MAX_DEPTH) refuse(argument, items, `nested at most ${MAX_DEPTH} deep`);
    if (items.length === 0) return out.u8(0x29);
    if (items.length > 3) out.u8(0x28);
    for (let i = 0; i < items.length; i++)
      this.#value(`${argument}[${i}]`, items[i], depth + 1, i === 0 && depth === 1);
    out.u8(items.length > 3 ? 0x74 : 0x84 + items.length, MEMOIZE);
    this.#memo++;
  }

  #value(argument: string, value: ExtraKey, depth: number, first: boolean): void {
    const { out } = this;
    if (typeof value === 'string') {
      const bytes = encodeText(argument, value);
      if (this.#repeats(argument, value, `s${value}`, first && TAGS.has(value))) return;
      return pickleBytes(out, 0x8c, 0x58, bytes);
    }
    if (typeof value === 'number' || typeof value === 'bigint') return pickleInteger(out, integerOf(argument, value));
    if (value === null) return out.u8(0x4e);
    if (Array.isArray(value)) return this.tuple(argument, value, depth);
    const bytes = (typeof value === 'object' ? bytesOf(argument, value) : undefined) ?? refuse(argument, value);
    this.#repeats(argument, value, `b${toHex(bytes)}`, false);
    pickleBytes(out, 0x43, 0x42, bytes);
  }

  /** Writes a reference to an earlier tag; remembers what is new. */
  #repeats(argument: string, value: ExtraKey, key: string, tag: boolean): boolean {
    const before = this.#seen.get(key);
    if (before === undefined) {
      this.#seen.set(key, { index: this.#memo++, tag });
      return false;
    }
    if (!tag || !before.tag) {
      throw errors.undefinedHash(
        argument,
        value,
        'a value that appears twice has no defined pickle (it depends on which Python objects are the same); use a CBOR algorithm',
      );
    }
    if (before.index < 0x100) this.out.u8(0x68, before.index);
    else {
      this.out.u8(0x6a);
      this.out.little(before.index, 4);
    }
    return true;
  }
}

export const pickle: Serializer = {
  extraKeys: (out, argument, keys) => new PickledKeys(out).tuple(argument, keys, 0),
  seed(text) {
    const body = new Writer();
    pickleBytes(body, 0x8c, 0x58, encodeText('seed', text));
    const out = new Writer();
    out.u8(0x80, 5, 0x95);
    out.little(body.length + 1, 8);
    out.append(body.bytes);
    out.u8(0x2e);
    return out.bytes;
  },
};
