/**
 * Real vLLM engines on the CPU, with and without a shared pool of KV: the published agentic workload scaled down (sessions over
 * a common prompt, turn after turn, sent round robin to two engines), and a prompt of 4,000 tokens.
 *
 *   no pool         each engine has its own prefix cache alone
 *   stock on stock  vLLM's MooncakeStoreConnector, the stock master and store service
 *   stock on ours   the same connector, `mooncake-ts master` and `mooncake-ts store`
 *   ours on stock   our MooncakeStoreConnector and node service, the stock master and store service
 *   ours on ours    the same, with `mooncake-ts master` and `mooncake-ts store`
 *
 * Hit rate: tokens of prompts that were not computed, of all. TTFT: to the first token as the engine counts it, median. The
 * engines' own caches are so small that sessions drive each other out, as they do where many share a GPU. The long prompt is
 * computed and saved, forgotten by the engine, and loaded, by two engines in turns: vLLM's connector and ours over one pool.
 *
 *   npm run bench -- vllm --long      the long prompt alone
 *   npm run bench -- vllm --agentic   the sessions alone
 *
 * The lane vllm's setup installs what this needs below build/; or MOONCAKE_VLLM_PYTHON (vLLM 0.32 and the Mooncake wheel) and
 * MOONCAKE_VLLM_MODEL (test/vllm/make_model.py) name it. Two engines take 4 GB.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Kind } from '../test/support/masters.js';
import type { Cluster } from '../test/vllm/support/cluster.js';
import type { Completion, Engine, EngineOptions } from '../test/vllm/support/engine.js';
import type { NodeService } from '../test/vllm/support/node-service.js';
import { randomPrompt } from '../test/vllm/support/prompts.js';
import { median, missing, report } from './support/report.js';

const python = process.env.MOONCAKE_VLLM_PYTHON ?? resolve('build/vllm-engine/bin/python');
const model = process.env.MOONCAKE_VLLM_MODEL ?? resolve('build/vllm-model');
const SUPPORT = 'test/vllm/support';

/** Of the published 20,000 + 10,000 + 30 turns of 2,048 + 900 tokens: a sixteenth, fewer turns. */
const AGENTIC = { sessions: 4, common: 1248, first: 640, turn: 128, output: 56, turns: 6 };
const LONG = 4000;
const LONG_ROUNDS = 7;
const LLM = {
  max_model_len: 4608,
  max_num_batched_tokens: 1024,
  // 6,400 tokens: less than the sessions of one engine take in the end.
  num_gpu_blocks_override: 200,
};

interface Contender {
  readonly name: string;
  /** Whose connector; undefined: none. */
  readonly connector?: Kind;
  /** Whose master and store node. */
  readonly pool?: Kind;
}

const CONTENDERS: readonly Contender[] = [
  { name: 'no pool' },
  { name: 'stock on stock', connector: 'stock', pool: 'stock' },
  { name: 'stock on ours', connector: 'stock', pool: 'ours' },
  { name: 'ours on stock', connector: 'ours', pool: 'stock' },
  { name: 'ours on ours', connector: 'ours', pool: 'ours' },
];

/** What engines are started with, and what must end when they have. */
class Pool {
  readonly #cluster: Cluster | undefined;
  readonly #services: NodeService[] = [];

  private constructor(cluster: Cluster | undefined) {
    this.#cluster = cluster;
  }

  static async start(kind: Kind | undefined): Promise<Pool> {
    // These find their scripts where they are told to, or beside themselves, which a bundle is not.
    const { Cluster } = await import('../test/vllm/support/cluster.js');
    return new Pool(kind && (await Cluster.start({ master: kind, node: kind, bytes: 2 ** 29 })));
  }

  async engine(name: string, connector: Kind | undefined): Promise<Engine> {
    const { Engine } = await import('../test/vllm/support/engine.js');
    const { NodeService } = await import('../test/vllm/support/node-service.js');
    let args: Pick<EngineOptions, 'transfer' | 'env'> | undefined;
    if (connector === 'stock') args = await this.#cluster?.args('store');
    if (connector === 'ours') {
      // One for all engines of the pool, as on one host.
      if (this.#services.length === 0) this.#services.push(await NodeService.start({ cluster: this.#cluster }));
      args = await this.#services[0].args('store');
    }
    const engine = await Engine.start({ name, llm: LLM, ...args });
    // What a first request makes once is no part of the figures.
    await engine.generate([randomPrompt(300, 99)], { maxTokens: 4 });
    return engine;
  }

  async end(): Promise<void> {
    for (const service of this.#services) await service.end();
    await this.#cluster?.end();
  }
}

/** Runs `work` with engines of these connectors over one pool. */
async function withEngines<T>(
  pool: Kind | undefined,
  connectors: readonly (Kind | undefined)[],
  work: (engines: readonly Engine[]) => Promise<T>,
): Promise<T> {
  const made = await Pool.start(pool);
  const engines: Engine[] = [];
  try {
    for (const [i, connector] of connectors.entries()) {
      engines.push(await made.engine(`${connector ?? 'no'} connector, ${i + 1}`, connector));
    }
    return await work(engines);
  } finally {
    for (const engine of engines) await engine.stop();
    await made.end();
  }
}

interface Figures {
  /** Share of the prompts' tokens. */
  readonly hitRate: number;
  /** Milliseconds. */
  readonly ttft: number;
}

async function agentic(engines: readonly Engine[]): Promise<Completion[]> {
  const { sessions, common, first, turn, output, turns } = AGENTIC;
  const shared = randomPrompt(common, 1);
  const histories = Array.from({ length: sessions }, (_, i) => [...shared, ...randomPrompt(first, 100 + i)]);
  const answers: Completion[] = [];
  for (let round = 0, sent = 0; round < turns; round++) {
    for (const [i, history] of histories.entries()) {
      if (round > 0) history.push(...randomPrompt(turn, 1000 * round + i));
      const [answer] = await engines[sent++ % engines.length].generate([history], { maxTokens: output });
      answers.push(answer);
      history.push(...answer.tokens);
    }
    // One more in each round, so that sessions do not stay on their engine by the number of engines.
    sent++;
  }
  return answers;
}

interface LongFigures {
  /** Milliseconds to the first token, of each round. */
  readonly computed: number[];
  readonly loaded: number[];
}

/** Each engine computes a prompt, forgets it, and finds it in the pool; by turns, and every other round in the other order. */
async function long(engines: readonly Engine[]): Promise<LongFigures[]> {
  const figures: LongFigures[] = engines.map(() => ({ computed: [], loaded: [] }));
  for (let round = 0; round < LONG_ROUNDS; round++) {
    const order = round % 2 === 0 ? engines : [...engines].reverse();
    for (const engine of order) {
      const { computed, loaded } = figures[engines.indexOf(engine)];
      // Not what the other one has saved: in stock mode both know the same keys.
      const prompt = randomPrompt(LONG, 5000 + 10 * round + engines.indexOf(engine));
      computed.push((await engine.generate([prompt], { maxTokens: 1 }))[0].ttft!);
      // Saving goes on behind the answer.
      await new Promise((done) => setTimeout(done, 1500));
      await engine.reset();
      const [answer] = await engine.generate([prompt], { maxTokens: 1 });
      if (answer.cached < LONG - 64) throw new Error(`only ${answer.cached} of ${LONG} tokens came from the pool`);
      loaded.push(answer.ttft!);
      await engine.reset();
    }
  }
  return figures;
}

/** Every contender twice, the second time in the other order: what else the machine does meets all of them. */
async function reportAgentic(): Promise<void> {
  const answers = new Map<string, Completion[]>(CONTENDERS.map(({ name }) => [name, []]));
  for (const { name, connector, pool } of [...CONTENDERS, ...[...CONTENDERS].reverse()]) {
    answers.get(name)!.push(...(await withEngines(pool, [connector, connector], agentic)));
  }
  const figures = new Map([...answers].map(([name, own]) => [name, figuresOf(own)]));
  for (const [name, { hitRate, ttft }] of figures) {
    const peer = name === 'stock on stock' ? 'no pool' : 'stock on stock';
    const base = name === 'no pool' ? undefined : figures.get(peer)!;
    const against = (figure: keyof Figures) => base && { peer, baseline: base[figure] };
    report({ name: `agentic, ${name}: hit rate`, value: hitRate, unit: 'of tokens', ...against('hitRate') }, 'higher');
    report({ name: `agentic, ${name}: TTFT`, value: ttft, unit: 'ms', ...against('ttft') }, 'lower');
  }
}

function figuresOf(answers: readonly Completion[]): Figures {
  const sum = (of: (answer: Completion) => number) => answers.reduce((total, answer) => total + of(answer), 0);
  return {
    hitRate: sum(({ cached }) => cached) / sum(({ prompt }) => prompt),
    ttft: median(answers.map(({ ttft }) => ttft!)),
  };
}

async function reportLong(): Promise<void> {
  for (const pool of ['stock', 'ours'] as const) {
    const [stock, ours] = await withEngines(pool, ['stock', 'ours'], long);
    for (const [whose, { computed, loaded }] of Object.entries({ stock, ours })) {
      const name = `${LONG} tokens, ${whose} on ${pool}: TTFT`;
      report({ name: `${name} computed`, value: median(computed), unit: 'ms' }, 'lower');
      report(
        { name: `${name} loaded`, value: median(loaded), unit: 'ms', peer: 'computed', baseline: median(computed) },
        'lower',
      );
    }
    const peer = `stock on ${pool}`;
    const result = { value: median(ours.loaded), unit: 'ms', peer, baseline: median(stock.loaded), wanted: 1 };
    report({ name: `${LONG} tokens loaded, ours on ${pool}`, ...result }, 'lower');
  }
}

if (!existsSync(python) || !existsSync(join(model, 'config.json'))) {
  missing('real vLLM', `no ${existsSync(python) ? model : python}: npm run test:vllm prepares both`);
} else {
  Object.assign(process.env, {
    MOONCAKE_VLLM_ENGINE: python,
    MOONCAKE_PYTHON: python,
    MOONCAKE_VLLM_MODEL: model,
    MOONCAKE_VLLM_SUPPORT: SUPPORT,
    MOONCAKE_VLLM_ADAPTER: resolve('integrations/vllm'),
  });
  // Both where neither is asked for, or both are.
  const asked = ['--long', '--agentic'].filter((flag) => process.argv.includes(flag));
  if (asked.length !== 1 || asked[0] === '--long') await reportLong();
  if (asked.length !== 1 || asked[0] === '--agentic') await reportAgentic();
}
