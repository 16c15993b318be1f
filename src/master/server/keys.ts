/**
 * Keys off the wire. There they are any bytes; a store's are 1 to 65,535 bytes. A batch with bad ones among them is
 * carried out for the others, and nobody's answer moves to another place: to begin a bad key is Mooncake's -600, to ask
 * for it finds nothing.
 */
import { Keys, MAX_KEY_BYTES } from '../../core/keys.js';
import type { Packed } from '../../rpc/batches.js';

export interface GoodKeys {
  readonly keys: Keys;
  /** Place in the batch of each good key; undefined where all are good. */
  readonly places?: Uint32Array;
}

/** Whether a key of so many bytes is one. */
export const isKey = (size: number) => size > 0 && size <= MAX_KEY_BYTES;

export function oneKey(key: Uint8Array): GoodKeys {
  return goodKeys({ bytes: key, offsets: Uint32Array.of(0, key.length) });
}

export function goodKeys({ bytes, offsets }: Packed): GoodKeys {
  const count = offsets.length - 1;
  const places: number[] = [];
  for (let i = 0; i < count; i++) if (isKey(offsets[i + 1] - offsets[i])) places.push(i);
  if (places.length === count) return { keys: new Keys(bytes, offsets) };
  return {
    keys: Keys.from(places.map((i) => bytes.subarray(offsets[i], offsets[i + 1]))),
    places: Uint32Array.from(places),
  };
}

/** Puts answers to the good keys in their places among `count`; the others get `bad`. */
export function spread<T>(answers: readonly T[], places: Uint32Array | undefined, count: number, bad: T): readonly T[] {
  if (!places) return answers;
  const all = new Array<T>(count).fill(bad);
  for (const [i, place] of places.entries()) all[place] = answers[i];
  return all;
}

/** Keys in one piece; the empty one too. */
export function packKeys(keys: readonly Uint8Array[]): Packed {
  const offsets = new Uint32Array(keys.length + 1);
  for (const [i, key] of keys.entries()) offsets[i + 1] = offsets[i] + key.length;
  const bytes = new Uint8Array(offsets[keys.length]);
  for (const [i, key] of keys.entries()) bytes.set(key, offsets[i]);
  return { bytes, offsets };
}
