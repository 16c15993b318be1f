/**
 * Real vLLM engines on the CPU, with and without a shared pool of KV: the published agentic workload scaled down (sessions over
 * a common prompt, turn after turn, sent round robin to two engines), and a prompt of 4,000 tokens.
 *
 *   no pool         each engine has its own prefix cache alone
 *   stock on stock  vLLM's MooncakeStoreConnector, the stock master and store service
 *   stock on ours   the same connector, `mooncake-ts master` and `mooncake-ts store`
 *
 * Hit rate: tokens of prompts that were not computed, of all. TTFT: to the first token as the engine counts it, median. The
 * engines' own caches are so small that sessions drive each other out, as they do where many share a GPU.
 *
 * The lane vllm's setup installs what this needs below build/; or MOONCAKE_VLLM_PYTHON (vLLM 0.32 and the Mooncake wheel) and
 * MOONCAKE_VLLM_MODEL (test/vllm/make_model.py) name it. Two engines take 4 GB.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Kind } from '../test/support/masters.js';
import type { Completion, Engine, EngineOptions } from '../test/vllm/support/engine.js';
import { randomPrompt } from '../test/vllm/support/prompts.js';
import { median, missing, report } from './support/report.js';

const python = process.env.MOONCAKE_VLLM_PYTHON ?? resolve('build/vllm-engine/bin/python');
const model = process.env.MOONCAKE_VLLM_MODEL ?? resolve('build/vllm-model');
const SUPPORT = 'test/vllm/support';

/** Of the published 20,000 + 10,000 + 30 turns of 2,048 + 900 tokens: a sixteenth, fewer turns. */
const AGENTIC = { sessions: 4, common: 1248, first: 640, turn: 128, output: 56, turns: 6 };
const LONG = 4000;
const LONG_ROUNDS = 5;
const LLM = {
  max_model_len: 4608,
  max_num_batched_tokens: 1024,
  // 6,400 tokens: less than the sessions of one engine take in the end.
  num_gpu_blocks_override: 200,
};

interface Contender {
  readonly name: string;
  /** Whose master and store node; undefined: no pool. */
  readonly pool?: Kind;
}

const CONTENDERS: readonly Contender[] = [
  { name: 'no pool' },
  { name: 'stock on stock', pool: 'stock' },
  { name: 'stock on ours', pool: 'ours' },
];

interface Figures {
  /** Share of the prompts' tokens. */
  readonly hitRate: number;
  /** Milliseconds. */
  readonly ttft: number;
  /** Milliseconds: of a long prompt from the pool, and computed. */
  readonly loaded?: number;
  readonly computed: number;
}

async function measure({ name, pool }: Contender): Promise<Figures> {
  // These find their scripts where they are told to, or beside themselves, which a bundle is not.
  const { Engine } = await import('../test/vllm/support/engine.js');
  const { Cluster } = await import('../test/vllm/support/cluster.js');
  const cluster = pool && (await Cluster.start({ master: pool, node: pool, bytes: 2 ** 29 }));
  const engines: Engine[] = [];
  try {
    for (const which of ['A', 'B']) {
      const options: EngineOptions = { name: `${name} ${which}`, llm: LLM, ...(await cluster?.args('store')) };
      engines.push(await Engine.start(options));
    }
    // What a first request makes once is no part of the figures.
    for (const engine of engines) await engine.generate([randomPrompt(300, 99)], { maxTokens: 4 });
    return { ...(await agentic(engines)), ...(await long(engines, pool !== undefined)) };
  } finally {
    for (const engine of engines) await engine.stop();
    await cluster?.end();
  }
}

async function agentic(engines: readonly Engine[]): Promise<Pick<Figures, 'hitRate' | 'ttft'>> {
  const { sessions, common, first, turn, output, turns } = AGENTIC;
  const shared = randomPrompt(common, 1);
  const histories = Array.from({ length: sessions }, (_, i) => [...shared, ...randomPrompt(first, 100 + i)]);
  const answers: Completion[] = [];
  let tokens = 0;
  for (let round = 0, sent = 0; round < turns; round++) {
    for (const [i, history] of histories.entries()) {
      if (round > 0) history.push(...randomPrompt(turn, 1000 * round + i));
      const [answer] = await engines[sent++ % engines.length].generate([history], { maxTokens: output });
      tokens += history.length;
      answers.push(answer);
      history.push(...answer.tokens);
    }
    // One more in each round, so that sessions do not stay on their engine by the number of engines.
    sent++;
  }
  const cached = answers.reduce((sum, answer) => sum + answer.cached, 0);
  return { hitRate: cached / tokens, ttft: median(answers.map((answer) => answer.ttft!)) };
}

/** One engine computes; the other one finds it in the pool. */
async function long([a, b]: readonly Engine[], isPooled: boolean): Promise<Pick<Figures, 'loaded' | 'computed'>> {
  const computed: number[] = [];
  const loaded: number[] = [];
  for (let round = 0; round < LONG_ROUNDS; round++) {
    const prompt = randomPrompt(LONG, 5000 + round);
    for (const engine of [a, b]) await engine.reset();
    computed.push((await a.generate([prompt], { maxTokens: 1 }))[0].ttft!);
    if (!isPooled) continue;
    // Saving goes on behind the answer.
    await new Promise((done) => setTimeout(done, 1500));
    const [answer] = await b.generate([prompt], { maxTokens: 1 });
    if (answer.cached < LONG - 64) throw new Error(`only ${answer.cached} of ${LONG} tokens came from the pool`);
    loaded.push(answer.ttft!);
  }
  return { computed: median(computed), ...(isPooled && { loaded: median(loaded) }) };
}

if (!existsSync(python) || !existsSync(join(model, 'config.json'))) {
  missing('real vLLM', `no ${existsSync(python) ? model : python}: npm run test:vllm prepares both`);
} else {
  Object.assign(process.env, {
    MOONCAKE_VLLM_ENGINE: python,
    MOONCAKE_PYTHON: python,
    MOONCAKE_VLLM_MODEL: model,
    MOONCAKE_VLLM_SUPPORT: SUPPORT,
  });
  const figures = new Map<Contender, Figures>();
  for (const contender of CONTENDERS) figures.set(contender, await measure(contender));
  const [none, stock] = CONTENDERS.slice(0, 2).map((contender) => figures.get(contender)!);
  for (const [{ name, pool }, { hitRate, ttft, loaded, computed }] of figures) {
    const agenticBase =
      pool === 'ours' ? { peer: 'stock on stock', baseline: stock } : { peer: 'no pool', baseline: none };
    const against = <Name extends keyof Figures>(figure: Name) =>
      pool && { peer: agenticBase.peer, baseline: agenticBase.baseline[figure] as number };
    report({ name: `agentic, ${name}: hit rate`, value: hitRate, unit: 'of tokens', ...against('hitRate') }, 'higher');
    report({ name: `agentic, ${name}: TTFT`, value: ttft, unit: 'ms', ...against('ttft') }, 'lower');
    report({ name: `${LONG} tokens computed, ${name}: TTFT`, value: computed, unit: 'ms' }, 'lower');
    if (loaded === undefined) continue;
    const base =
      pool === 'ours' ? { peer: 'stock on stock', baseline: stock.loaded } : { peer: 'computed', baseline: computed };
    report({ name: `${LONG} tokens from the pool, ${name}: TTFT`, value: loaded, unit: 'ms', ...base }, 'lower');
  }
}
