/** Runs a match in a core's memory: brings over the hashes that it asks for, one at a time. */
import { type Hashes, hashCount, type KeyWidth, writeKey } from './prefix-keys.js';
import type { Core } from './wasm.js';

/** What this module calls of the core. */
export interface QueryExports {
  prefixStart(result: number, count: number, group: number): number;
  prefixStep(result: number, key: number): number;
  prefixFinish(result: number): number;
}

/** Bytes of a result: rows of four lengths (gpu, cpu, disk, any) for 1,024 instances, and the match's state. */
export const RESULT_BYTES = 1024 * 16 + 48;
/** Bytes that `query` uses behind a result. */
export const KEY_BYTES = 32;
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
  let position = exports.prefixStart(result, hashCount(hashes, keyWidth), group);
  if (hashes instanceof BigUint64Array) {
    const { u64 } = core;
    const at = key >>> 3;
    while (position >= 0) {
      u64[at] = hashes[position];
      position = exports.prefixStep(result, key);
    }
  } else {
    const { u8 } = core;
    while (position >= 0) {
      writeKey(u8, key, hashes, position, keyWidth);
      position = exports.prefixStep(result, key);
    }
  }
  return exports.prefixFinish(result);
}
