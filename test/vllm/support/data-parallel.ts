/** Data-parallel ranks are engines of their own behind one server: what one saved the other loads. */
import * as assert from 'uvu/assert';
import { baseline, sameTokens } from './baseline.js';
import type { Cluster } from './cluster.js';
import { LOADABLE, PROMPTS, SAVED, sum } from './prompts.js';
import { type CompletionReply, Server, type ServerOptions } from './server.js';

/** A server of two ranks: the first computes and saves, the second loads. */
export async function dataParallel(cluster: Cluster, options: Omit<ServerOptions, 'name'>): Promise<void> {
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
