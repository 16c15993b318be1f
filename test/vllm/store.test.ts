// vLLM's own MooncakeStoreConnector (the stock wheel) in a cluster of ours: what one engine saved another loads, and the
// tokens are those of an engine without a connector.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, differing, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { Engine, type LlmOptions } from './support/engine.js';
import { PROMPTS } from './support/prompts.js';

const engineTest = withVllm(test);
/** Whole blocks of the prompts, of which the last token is always computed: 64 tokens are one block from outside. */
const BLOCK = 32;
const LOADABLE = PROMPTS.map(({ length }) => Math.floor((length - 1) / BLOCK) * BLOCK);
const SAVED = PROMPTS.reduce((sum, { length }) => sum + Math.floor(length / BLOCK), 0);
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

async function withCluster(use: (cluster: Cluster) => Promise<void>, ...options: Parameters<typeof Cluster.start>) {
  const cluster = await Cluster.start(...options);
  try {
    await use(cluster);
  } finally {
    await cluster.end();
  }
}

const start = async (cluster: Cluster, name: string, llm?: LlmOptions) =>
  Engine.start({ name, ...(await cluster.args('store')), llm });

engineTest('A saves, A exits, B loads; then a corrupted block shows', () =>
  withCluster(async (cluster) => {
    const expected = await baseline();
    const a = await start(cluster, 'A');
    sameTokens(await a.generate(PROMPTS), expected);
    assert.is(await a.externalTokens(), 0);
    await cluster.holds(SAVED);
    await a.stop();
    const b = await start(cluster, 'B');
    try {
      const loaded = await b.generate(PROMPTS);
      sameTokens(loaded, expected);
      assert.equal(
        loaded.map((one) => one.cached),
        LOADABLE,
      );
      assert.is(await b.externalTokens(), sum(LOADABLE));
      // The stock client verifies nothing unless it is told to: what lies there is what the engine gets. Were the tokens
      // the same now, their equality above would say nothing.
      await b.reset();
      await cluster.corrupt(await cluster.keys());
      const wrong = await b.generate(PROMPTS);
      assert.equal(
        wrong.map((one) => one.cached),
        LOADABLE,
      );
      assert.is(differing(wrong, expected), PROMPTS.length);
    } finally {
      await b.stop();
    }
  }),
);

engineTest('two engines at once; everything removed by one; the node killed', () =>
  withCluster(async (cluster) => {
    const expected = await baseline();
    const engines = await Promise.all(['C', 'D'].map((name) => start(cluster, name)));
    const [c, d] = engines;
    const [first, second] = [PROMPTS.slice(0, 2), PROMPTS.slice(2)];
    try {
      const saved = await Promise.all([c.generate(first), d.generate(second)]);
      sameTokens(saved.flat(), expected);
      await cluster.holds(SAVED);
      // Each has what it computed in its own cache, and what the other computed from the store.
      const loaded = await Promise.all([d.generate(first), c.generate(second)]);
      sameTokens(loaded.flat(), expected);
      assert.equal(
        loaded.flat().map((one) => one.cached),
        LOADABLE,
      );
      assert.is((await c.externalTokens()) + (await d.externalTokens()), sum(LOADABLE));

      await c.reset(true);
      assert.equal(await cluster.keys(), []);
      await d.reset();
      const computed = await d.generate(PROMPTS);
      sameTokens(computed, expected);
      assert.is(sum(computed.map((one) => one.cached)), 0);

      await cluster.holds(SAVED);
      await c.reset();
      await cluster.killNode();
      sameTokens(await c.generate(PROMPTS), expected);
    } finally {
      await Promise.all(engines.map((engine) => engine.stop()));
    }
  }),
);

engineTest('two tensor-parallel ranks, each with its own objects', () =>
  withCluster(async (cluster) => {
    const llm = { tensor_parallel_size: 2, distributed_executor_backend: 'mp' };
    const expected = await baseline(PROMPTS, { llm });
    const engine = await start(cluster, 'TP 2', llm);
    try {
      sameTokens(await engine.generate(PROMPTS), expected);
      const keys = await cluster.holds(2 * SAVED);
      for (const rank of [0, 1]) assert.is(keys.filter((key) => key.includes(`@tp_rank:${rank}@`)).length, SAVED);
      await engine.reset();
      sameTokens(await engine.generate(PROMPTS), expected);
      assert.is(await engine.externalTokens(), sum(LOADABLE));
    } finally {
      await engine.stop();
    }
  }),
);

test.run();
