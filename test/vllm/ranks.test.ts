// Engines of several ranks over a store of ours: vLLM's own MooncakeStoreConnector with tensor-parallel ranks, and both
// connectors with data-parallel ones, which are engines of their own behind one server. What one rank saved the other loads.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { NodeService } from './support/node-service.js';
import { LOADABLE, PROMPTS, SAVED, sum } from './support/prompts.js';
import { type CompletionReply, Server, type ServerOptions } from './support/server.js';

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

/** A server of two ranks: the first computes and saves, the second loads. */
async function dataParallel(cluster: Cluster, options: Omit<ServerOptions, 'name'>): Promise<void> {
  const expected = await baseline();
  const server = await Server.start({ name: 'DP 2', ...options, llm: { data_parallel_size: 2 } });
  try {
    for (const [rank, cached] of [PROMPTS.map(() => 0), LOADABLE].entries()) {
      const replies: CompletionReply[] = [];
      for (const prompt of PROMPTS) replies.push(await server.complete(prompt, {}, rank));
      sameTokens(
        replies.map((reply) => ({ tokens: reply.choices[0].token_ids })),
        expected,
      );
      assert.equal(
        replies.map(({ usage }) => usage.prompt_tokens_details?.cached_tokens ?? 0),
        cached,
      );
      await cluster.holds(SAVED);
    }
    assert.is((await server.metrics())['vllm:external_prefix_cache_hits_total'], sum(LOADABLE));
  } finally {
    await server.stop();
  }
}

engineTest("two data-parallel ranks, vLLM's own connector", () =>
  Cluster.use(async (cluster) => dataParallel(cluster, await cluster.args('store'))),
);

engineTest('two data-parallel ranks, our connector', () =>
  Cluster.use(async (cluster) => {
    const service = await NodeService.start({ cluster });
    try {
      await dataParallel(cluster, await service.args('store'));
    } finally {
      await service.end();
    }
  }),
);

test.run();
