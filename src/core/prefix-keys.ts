/**
 * Hashes on their way into an index: every accepted form becomes keys in the core's memory. Keys of 16 and 32 bytes lie
 * there as they are; an 8-byte key is a number, the last eight bytes of a digest read big-endian, which is what vLLM's
 * KV events publish.
 */
import type { HashWidth } from './block-hashes.js';
import { typedArray } from './check.js';
import { errors } from './errors.js';
import type { Core } from './wasm.js';

export type KeyWidth = HashWidth;

/** Hashes of consecutive blocks in one buffer, `length * width` bytes: BlockHashes, or what has the same fields. */
export interface HashRun {
  readonly bytes: Uint8Array;
  readonly width: KeyWidth;
  readonly length: number;
}

/**
 * Hashes of consecutive blocks: a run that knows its width; bytes, of the index's key width each; or numbers, for an
 * index of 8-byte keys. A run of 16 or 32 bytes is taken by an 8-byte index too: its low 64 bits count.
 */
export type Hashes = HashRun | Uint8Array | BigUint64Array;

/** One hash: bytes, a number, or a run of one. */
export type Hash = HashRun | Uint8Array | BigUint64Array | bigint;

/** What this module calls of the core. */
export interface KeyExports {
  prefixNarrow(hashes: number, width: number, count: number): void;
}

const FORMS = 'block hashes, a Uint8Array or a BigUint64Array';

/**
 * The hashes, checked: what the functions below take. A run comes back as a copy of its fields, which a caller's
 * getters cannot change any more.
 */
export function checkHashes(argument: string, hashes: Hashes, keyWidth: KeyWidth): Hashes {
  if (ArrayBuffer.isView(hashes)) {
    if (hashes instanceof BigUint64Array) {
      if (keyWidth !== 8) throw wrongWidth(argument, hashes, 8, keyWidth);
      return typedArray(argument, hashes, true, FORMS);
    }
    const keys = typedArray<Uint8Array>(argument, hashes, hashes instanceof Uint8Array, FORMS);
    if (keys.length % keyWidth !== 0) {
      throw errors.invalidArgument(argument, hashes, `a multiple of the index's key width, ${keyWidth} bytes`);
    }
    return keys;
  }
  if (typeof hashes !== 'object' || hashes === null) throw errors.invalidArgument(argument, hashes, FORMS);
  const { bytes } = hashes;
  if (!(bytes instanceof Uint8Array)) throw errors.invalidArgument(argument, hashes, FORMS);
  const { width, length } = hashes;
  typedArray(`${argument}.bytes`, bytes, true, 'a Uint8Array');
  if (width !== 8 && width !== 16 && width !== 32) {
    throw errors.invalidArgument(`${argument}.width`, width, 'one of 8, 16, 32');
  }
  if (bytes.length % width !== 0) {
    throw errors.invalidArgument(`${argument}.bytes`, bytes, `a multiple of ${width} bytes long`);
  }
  if (length * width !== bytes.length) {
    throw errors.invalidArgument(`${argument}.length`, length, `${bytes.length / width}, what its bytes hold`);
  }
  if (width !== keyWidth && keyWidth !== 8) throw wrongWidth(argument, hashes, width, keyWidth);
  return { bytes, width, length };
}

function wrongWidth(argument: string, value: unknown, width: number, keyWidth: KeyWidth) {
  return errors.invalidArgument(
    argument,
    value,
    `hashes of ${keyWidth} bytes, as the index's keys are, not of ${width}`,
  );
}

/** Bytes that checked hashes take on their way in. */
export function keyBytes(hashes: Hashes): number {
  return 'bytes' in hashes ? hashes.bytes.length : hashes.byteLength;
}

/** Whether only part of each checked hash is compared: a wide query on an index of 8-byte keys. */
export function isApproximate(hashes: Hashes, keyWidth: KeyWidth): boolean {
  return 'width' in hashes && hashes.width > keyWidth;
}

/** Writes checked hashes as keys to `at`, a multiple of 8 with room for `keyBytes`; returns how many. */
export function writeKeys(core: Core<KeyExports>, at: number, hashes: Hashes, keyWidth: KeyWidth): number {
  if (hashes instanceof BigUint64Array) {
    core.u64.set(hashes, at >>> 3);
    return hashes.length;
  }
  const run = hashes instanceof Uint8Array;
  const bytes = run ? hashes : hashes.bytes;
  const width = run ? keyWidth : hashes.width;
  const count = bytes.length / width;
  core.u8.set(bytes, at);
  if (keyWidth === 8) core.exports.prefixNarrow(at, width, count);
  return count;
}

/** Number of checked hashes. */
export function hashCount(hashes: Hashes, keyWidth: KeyWidth): number {
  if (hashes instanceof BigUint64Array) return hashes.length;
  return hashes instanceof Uint8Array ? hashes.length / keyWidth : hashes.bytes.length / hashes.width;
}

/** Writes one of checked hashes, not of a BigUint64Array, as a key to `at`. */
export function writeKey(u8: Uint8Array, at: number, hashes: HashRun | Uint8Array, index: number, keyWidth: KeyWidth) {
  const plain = hashes instanceof Uint8Array;
  const bytes = plain ? hashes : hashes.bytes;
  const end = (index + 1) * (plain ? keyWidth : hashes.width);
  if (keyWidth === 8) for (let k = 0; k < 8; k++) u8[at + k] = bytes[end - 1 - k];
  else for (let k = 0; k < keyWidth; k++) u8[at + k] = bytes[end - keyWidth + k];
}

/** One hash as hashes, checked. */
export function single(argument: string, hash: Hash, keyWidth: KeyWidth): Hashes {
  let hashes: Hashes;
  if (typeof hash === 'bigint') {
    if (hash < 0n || hash > 0xffff_ffff_ffff_ffffn) {
      throw errors.invalidArgument(argument, hash, 'a bigint from 0n to 2n ** 64n - 1n');
    }
    hashes = BigUint64Array.of(hash);
  } else if (hash instanceof Uint8Array) {
    const bytes = typedArray<Uint8Array>(argument, hash, true, 'one hash');
    hashes = { bytes, width: bytes.length as KeyWidth, length: 1 };
  } else {
    hashes = hash;
  }
  const checked = checkHashes(argument, hashes, keyWidth);
  if (checked.length !== 1) throw errors.invalidArgument(argument, hash, 'one hash');
  return checked;
}
