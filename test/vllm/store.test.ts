// vLLM's own MooncakeStoreConnector (the stock wheel) in a cluster of ours: what one engine saved another loads, and the
// tokens are those of an engine without a connector.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, differing, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { Engine, type EngineOptions, type KvTransferConfig } from './support/engine.js';
import { PROMPTS } from './support/prompts.js';

const engineTest = withVllm(test);
const STORE: KvTransferConfig = { kv_connector: 'MooncakeStoreConnector', kv_role: 'kv_both' };
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

const start = (cluster: Cluster, name: string, options: Partial<EngineOptions> = {}) =>
  Engine.start({ name, transfer: STORE, env: cluster.env, ...options });

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

test.run();
