/** What the tests of the pool share. */
import { type BlockHashes, MooncakeError } from 'mooncake-ts';
import * as assert from 'uvu/assert';

export const OPTIONS = { blockSize: 16, algorithm: 'sha256_cbor' } as const;

/** `length` token ids that differ from those of another seed from the first on. */
export function tokensOf(seed: number, length: number): Uint32Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Uint32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 15;
  });
}

/** Hashing this takes some tens of milliseconds: whatever is called next finds it running. */
export const LONG = tokensOf(99, 2_000_000);

export function sameHashes(actual: BlockHashes, expected: BlockHashes): void {
  assert.is(actual.width, expected.width);
  assert.is(Buffer.compare(actual.bytes, expected.bytes), 0);
}

/** The MooncakeError that a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<MooncakeError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, MooncakeError);
    return error as MooncakeError;
  }
  throw new Error('it resolved');
}
