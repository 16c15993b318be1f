/**
 * What checking every byte costs on this machine: the speed of the CRC-64 alone, of a copy, and of the copy that sums what
 * it stores, which is what transfers use. About a tenth of a second.
 */
import { crc64 } from '../core/checksum.js';
import type { Addon } from './addon.js';

export interface Verification {
  /** Instructions of the checksum, "wasm" without the accelerator. */
  instructions: string;
  /** Bytes per second of one core: the checksum of bytes in its cache; a copy in memory, without and with the checksum. */
  checksum: number;
  copy: number;
  checkedCopy: number;
}

const CACHED = 256 * 1024;
const MEMORY = 32 << 20;
const BUDGET_MS = 25;

/** Bytes per second at best, of passes over `bytes` until the budget is spent. */
function fastest(bytes: number, pass: () => void): number {
  pass();
  let best = 0;
  for (const end = performance.now() + BUDGET_MS; performance.now() < end; ) {
    const started = performance.now();
    pass();
    best = Math.max(best, (bytes * 1000) / (performance.now() - started));
  }
  return best;
}

export function measureVerification(addon?: Addon): Verification {
  const source = new Uint8Array(MEMORY).fill(1);
  const destination = new Uint8Array(MEMORY);
  const cached = source.subarray(0, CACHED);
  const work = addon
    ? {
        checksum: () => addon.crc64(cached, 0n),
        copy: () => addon.copy(destination, source),
        checkedCopy: () => addon.copyCrc64(destination, source, 0n),
      }
    : {
        checksum: () => crc64(cached),
        copy: () => destination.set(source),
        checkedCopy: () => {
          destination.set(source);
          crc64(destination);
        },
      };
  return {
    instructions: addon?.checksum ?? 'wasm',
    checksum: fastest(CACHED, work.checksum),
    copy: fastest(MEMORY, work.copy),
    checkedCopy: fastest(MEMORY, work.checkedCopy),
  };
}
