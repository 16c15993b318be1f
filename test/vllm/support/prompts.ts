/** Prompts of the model's tokens, the same in every run. */

/** A small generator with a seed (mulberry32): tests must be repeatable. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Random tokens of the tests' model (1,024 of them, the first three special). */
export function randomPrompt(length: number, seed: number): number[] {
  const next = generator(seed);
  return Array.from({ length }, () => 3 + Math.floor(next() * 997));
}

/** Some blocks and a rest; many blocks and chunks of prefill; less than one chunk; two whole blocks. */
export const PROMPTS: number[][] = [100, 257, 1000, 64].map((length, i) => randomPrompt(length, i + 1));

/** Tokens of a block of the tests' engines. */
export const BLOCK = 32;
/** Tokens of each prompt that can come from outside: whole blocks, and never the last token. */
export const LOADABLE = PROMPTS.map(({ length }) => Math.floor((length - 1) / BLOCK) * BLOCK);
/** Blocks of all of them, which is as many objects for each rank. */
export const SAVED = PROMPTS.reduce((total, { length }) => total + Math.floor(length / BLOCK), 0);

export const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
