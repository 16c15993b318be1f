// vLLM's own MooncakeConnector (the stock wheel) behind mooncake-ts proxy: one prefill, one decode, tokens equal to those of an
// engine without a connector, in both orders; clients that leave do not leave anything behind at the engines.
import { XpydProxy } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort } from '../support/masters.js';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { PROMPTS, randomPrompt } from './support/prompts.js';
import { Server } from './support/server.js';
import { stream } from './support/streams.js';

const engineTest = withVllm(test);

engineTest('stock connectors behind the proxy', async () => {
  const expected = await baseline();
  const cluster = await Cluster.start({ node: 'none' });
  const bootstrapPort = await freePort();
  const flags = ['--num-workers', '2', '--bootstrap-port', `${bootstrapPort}`, '--abort-timeout', '60'];
  const servers: Server[] = [];
  let proxy: XpydProxy | undefined;
  try {
    const [prefill, decode] = await Server.startAll(servers, [
      { name: 'prefill', ...(await cluster.args('prefill', ...flags)) },
      { name: 'decode', ...(await cluster.args('decode', ...flags)) },
    ]);
    const listen = async (order: 'prefill-first' | 'concurrent') =>
      (proxy = await XpydProxy.listen({
        port: 0,
        mode: 'bootstrap',
        order,
        prefill: [{ url: prefill.url, bootstrapPort }],
        decode: [decode.url],
      }));
    for (const order of ['prefill-first', 'concurrent'] as const) {
      const { url } = await listen(order);
      const before = (await decode.metrics())['vllm:external_prefix_cache_hits_total'] ?? 0;
      const tokens = await Promise.all(PROMPTS.map((prompt) => stream(url, prompt)));
      sameTokens(
        tokens.map((each) => ({ tokens: each })),
        expected,
      );
      // In the second round they are in the decode engine's own cache.
      if (order === 'prefill-first') {
        assert.ok((await decode.metrics())['vllm:external_prefix_cache_hits_total'] > before + 1000);
      }
      await proxy!.close();
    }
    const { url } = await listen('prefill-first');
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), i * 25);
      await stream(url, randomPrompt(1500, 100 + i), { more: { max_tokens: 200 }, signal: controller.signal }).catch(
        () => {},
      );
    }
    const unknown = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'no such model', prompt: 'x' }),
    });
    assert.is(unknown.status, 404);
    // Then the next is served.
    sameTokens([{ tokens: await stream(url, PROMPTS[1]) }], [expected[1]]);
    const busy = async (server: Server) => {
      const { 'vllm:num_requests_running': running, 'vllm:num_requests_waiting': waiting } = await server.metrics();
      return running + waiting;
    };
    for (const server of servers) {
      while ((await busy(server)) > 0) await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    await proxy?.close();
    await Promise.all(servers.map((server) => server.stop()));
    await cluster.end();
  }
});

test.run();
