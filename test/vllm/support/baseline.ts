/**
 * What an engine without a connector answers. Runs with the same prompts and options are made once in a run of the lane (they
 * take 12 s): the answers lie in the folder that the lane's setup gives.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Completion, Engine, type LlmOptions } from './engine.js';
import { PROMPTS } from './prompts.js';

export interface BaselineOptions {
  readonly maxTokens?: number;
  /** As the engine's that is compared: with other options it rounds differently. */
  readonly llm?: LlmOptions;
}

/** The tokens that an engine without a connector gives each prompt. */
export async function baseline(
  prompts: readonly number[][] = PROMPTS,
  { maxTokens = 40, llm = {} }: BaselineOptions = {},
): Promise<number[][]> {
  const key = createHash('sha256')
    .update(JSON.stringify([prompts, maxTokens, llm]))
    .digest('hex');
  const file = join(process.env.MOONCAKE_VLLM_BASELINES!, `${key}.json`);
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8'));
  const engine = await Engine.start({ name: 'baseline', llm });
  try {
    const tokens = (await engine.generate(prompts, { maxTokens })).map((one) => one.tokens);
    writeFileSync(`${file}.${process.pid}`, JSON.stringify(tokens));
    renameSync(`${file}.${process.pid}`, file);
    return tokens;
  } finally {
    await engine.stop();
  }
}

/** Every completion is whole and has the tokens that it has without a connector. */
export function sameTokens(completions: readonly Pick<Completion, 'tokens'>[], expected: readonly number[][]): void {
  assert.equal(
    completions.map((one) => one.tokens),
    expected,
  );
}

/** How many of the completions differ from those without a connector. */
export function differing(completions: readonly Pick<Completion, 'tokens'>[], expected: readonly number[][]): number {
  assert.is(completions.length, expected.length);
  return completions.filter((one, i) => JSON.stringify(one.tokens) !== JSON.stringify(expected[i])).length;
}
