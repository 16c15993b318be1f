/**
 * The reference engine by itself: how fast it computes a prompt of 512 tokens, how fast it generates behind it, and what
 * finding the prompt's KV in its own blocks saves. One thread, the default model, medians.
 *
 *     npm run bench -- engine [--json]
 */
import { encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import { median, report } from './support/report.js';

const PROMPT = 512;
const OUTPUT = 65;
const RUNS = 5;

const prompt = encode('The quick brown fox jumps over the lazy dog. '.repeat(12).slice(0, PROMPT - 1));
const engine = new ReferenceEngine();

async function run(cold: boolean) {
  if (cold) engine.resetPrefixCache();
  const { ttftMs, durationMs } = await engine.generate(prompt, { maxTokens: OUTPUT, ignoreEos: true }).result;
  return { ttftMs, perToken: (durationMs - ttftMs) / (OUTPUT - 1) };
}

await run(true);
const runs = [];
for (let i = 0; i < RUNS; i++) runs.push({ cold: await run(true), warm: await run(false) });
await engine.close();

const cold = median(runs.map((pair) => pair.cold.ttftMs));
const warm = median(runs.map((pair) => pair.warm.ttftMs));
const perToken = median(runs.flatMap((pair) => [pair.cold.perToken, pair.warm.perToken]));
report({ name: `prompt of ${PROMPT} tokens, computed`, value: (1000 * PROMPT) / cold, unit: 'tokens/s' }, 'higher');
report({ name: `generation behind ${PROMPT} tokens`, value: 1000 / perToken, unit: 'tokens/s' }, 'higher');
report(
  { name: 'first token, prompt in own blocks', value: warm, unit: 'ms', baseline: cold, peer: 'prompt computed' },
  'lower',
);
