/**
 * CBOR as cbor2.dumps(…, canonical=True) writes it (RFC 8949): integers and lengths in their shortest form. Tokens are
 * encoded in the core (assembly/hash/encode.ts); this is for seeds and extra keys.
 */
import { fromHex } from '../hex.js';
import { bytesOf, checkDepth, type ExtraKey, integerOf, type Serializer, textOf } from './values.js';
import { Writer } from './writer.js';

const UNSIGNED = 0;
const NEGATIVE = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const NULL = 0xf6;
const BIGNUM_TAG = 0xc2;

/** The initial byte of an item of type `major` and its argument, below 2^64. */
function head(out: Writer, major: number, argument: number | bigint): void {
  const type = major << 5;
  if (argument < 24) out.u8(type | Number(argument));
  else if (argument < 0x100) out.u8(type | 24).big(argument, 1);
  else if (argument < 0x10000) out.u8(type | 25).big(argument, 2);
  else if (argument < 0x100000000) out.u8(type | 26).big(argument, 4);
  else out.u8(type | 27).big(argument, 8);
}

function bytes(out: Writer, major: number, content: Uint8Array): void {
  head(out, major, content.length);
  out.append(content);
}

function integer(out: Writer, value: bigint): void {
  const negative = value < 0n;
  const magnitude = negative ? -1n - value : value;
  if (magnitude < 1n << 64n) {
    head(out, negative ? NEGATIVE : UNSIGNED, magnitude);
    return;
  }
  const hex = magnitude.toString(16);
  out.u8(BIGNUM_TAG + Number(negative));
  bytes(out, BYTES, fromHex(hex.length % 2 === 0 ? hex : `0${hex}`)!);
}

function item(out: Writer, argument: string, value: ExtraKey, depth: number): void {
  checkDepth(argument, value, depth);
  if (typeof value === 'string') bytes(out, TEXT, textOf(argument, value));
  else if (typeof value === 'number' || typeof value === 'bigint') integer(out, integerOf(argument, value));
  else if (value === null) out.u8(NULL);
  else if (Array.isArray(value)) {
    head(out, ARRAY, value.length);
    for (let i = 0; i < value.length; i++) item(out, `${argument}[${i}]`, value[i], depth + 1);
  } else bytes(out, BYTES, bytesOf(argument, value as Uint8Array));
}

export const cbor: Serializer = {
  extraKeys(out, argument, keys) {
    item(out, argument, keys, 0);
  },
  seed(text) {
    const out = new Writer();
    bytes(out, TEXT, textOf('seed', text));
    return out.bytes;
  },
};
