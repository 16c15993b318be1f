// vLLM's own MooncakeStoreConnector in engines of several ranks, tensor-parallel and data-parallel, over a store of ours.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { dataParallel } from './support/data-parallel.js';
import { LOADABLE, PROMPTS, SAVED, sum } from './support/prompts.js';

const engineTest = withVllm(test);

engineTest('two tensor-parallel ranks, each with its own objects', () =>
  Cluster.use(async (cluster) => {
    const llm = { tensor_parallel_size: 2, distributed_executor_backend: 'mp' };
    const expected = await baseline(PROMPTS, { llm });
    const engine = await cluster.engine('TP 2', llm);
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

engineTest("two data-parallel ranks, vLLM's own connector", () =>
  Cluster.use(async (cluster) => dataParallel(cluster, await cluster.args('store'))),
);

test.run();
