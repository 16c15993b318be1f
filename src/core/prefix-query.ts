/** Runs a match in a core's memory: brings over the hashes that it asks for. */
import { type Hashes, hashCount, type KeyWidth, writeKey } from './prefix-keys.js';
import type { Core } from './wasm.js';

/** What this module calls of the core. */
export interface QueryExports {
  prefixStart(result: number, count: number, group: number): number;
  prefixAdvance(result: number, hashes: number, position: number, count: number): number;
  prefixFinish(result: number): number;
}

/** Bytes of a result: rows of four lengths (gpu, cpu, disk, any) for 1,024 instances, and the match's state. */
export const RESULT_BYTES = 1024 * 16 + 48;
// Queries up to this length go over whole: that costs less than to be asked.
const SHORT = 64;
/** Bytes that `query` uses behind a result. */
export const KEY_BYTES = SHORT * 32;
export const ROW_WORDS = 4;

/**
 * Matches checked hashes. Leaves the rows at `result` and returns how many leading blocks anyone holds, or a negative
 * number when a writer of shared memory changed something meanwhile: then the rows count for nothing.
 */
export function query(
  core: Core<QueryExports>,
  result: number,
  hashes: Hashes,
  keyWidth: KeyWidth,
  group: number,
): number {
  const { exports } = core;
  const key = result + RESULT_BYTES;
  const count = hashCount(hashes, keyWidth);
  let at = exports.prefixStart(result, count, group);
  // With the hash that is wanted goes at least the next: the end of one run is followed by the start of another.
  const ahead = count <= SHORT ? count : 2;
  if (hashes instanceof BigUint64Array) {
    const { u64 } = core;
    const word = key >>> 3;
    while (at >= 0) {
      const end = Math.min(at + ahead, count);
      for (let k = at; k < end; k++) u64[word + k - at] = hashes[k];
      at = exports.prefixAdvance(result, key, at, end - at);
    }
  } else {
    const { u8 } = core;
    while (at >= 0) {
      const end = Math.min(at + ahead, count);
      for (let k = at; k < end; k++) writeKey(u8, key + (k - at) * keyWidth, hashes, k, keyWidth);
      at = exports.prefixAdvance(result, key, at, end - at);
    }
  }
  return exports.prefixFinish(result);
}
