/** What the store's tests share: bytes that say where they come from, stores that are closed, errors by code. */
import { MooncakeError, MooncakeStore, type StoreOptions } from 'mooncake-ts';

/** `size` bytes that depend on the seed, on every position and on nothing that repeats with a block's size. */
export function content(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ size) >>> 0;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function same(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0;
}

/** Runs `use` with a store that is closed afterwards. */
export async function withStore<T>(options: StoreOptions, use: (store: MooncakeStore) => Promise<T>): Promise<T> {
  const store = new MooncakeStore({ segments: '64MB', ...options });
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

/** The MooncakeError that the work fails with; throws when it does not. */
export async function failure(work: () => unknown): Promise<MooncakeError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MooncakeError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

export const code = async (work: () => unknown): Promise<string> => (await failure(work)).code;

/** A generator of numbers below `limit` that a seed repeats. */
export function random(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % limit;
  };
}
