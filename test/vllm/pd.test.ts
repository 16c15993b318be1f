// vLLM's own MooncakeConnector (the stock wheel): one prefill and one decode server over TCP, together with a store of ours by
// MultiConnector. The test plays the proxy; that of mooncake-ts has tests of its own.
import { randomUUID } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort } from '../support/masters.js';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { BLOCK, LOADABLE, PROMPTS, SAVED } from './support/prompts.js';
import { type CompletionReply, Server } from './support/server.js';

const engineTest = withVllm(test);

engineTest('one prefill, one decode and a shared store', async () => {
  const expected = await baseline();
  const cluster = await Cluster.start();
  const bootstrapPort = await freePort();
  const flags = ['--num-workers', '2', '--bootstrap-port', `${bootstrapPort}`, '--abort-timeout', '60'];
  const bootstrap = `http://127.0.0.1:${bootstrapPort}`;
  const servers: Server[] = [];
  try {
    const [prefill, decode] = await Server.startAll(servers, [
      { name: 'prefill', ...(await cluster.args('multi', '--role', 'prefill', ...flags)) },
      { name: 'decode', ...(await cluster.args('multi', '--role', 'decode', ...flags)) },
    ]);
    const registered = (await (await fetch(`${bootstrap}/query`)).json()) as Record<string, { engine_id: string }>;
    const engine = registered['0'].engine_id;

    const handOver = async (prompt: number[]): Promise<CompletionReply> => {
      const transfer_id = `xfer-${randomUUID()}`;
      const remote = { transfer_id, remote_engine_id: engine, remote_bootstrap_addr: bootstrap };
      await prefill.complete(prompt, {
        max_tokens: 1,
        kv_transfer_params: { do_remote_decode: true, do_remote_prefill: false, transfer_id },
      });
      return decode.complete(prompt, {
        kv_transfer_params: { do_remote_decode: false, do_remote_prefill: true, ...remote },
      });
    };
    const cached = (reply: CompletionReply) => reply.usage.prompt_tokens_details?.cached_tokens ?? 0;
    const tokens = (reply: CompletionReply) => ({ tokens: reply.choices[0].token_ids });

    const handed: CompletionReply[] = [];
    for (const prompt of PROMPTS) handed.push(await handOver(prompt));
    sameTokens(handed.map(tokens), expected);
    // All but the last token of a prompt, or all of them: what is left is computed to have something to decode from.
    for (const [i, reply] of handed.entries())
      assert.ok(cached(reply) >= PROMPTS[i].length - BLOCK, `${cached(reply)} of prompt ${i}`);

    // What prefill has saved another decode finds in the store, without any parameters; both may be gone by then.
    await cluster.holds(SAVED);
    await Promise.all(servers.splice(0).map((server) => server.stop()));
    const other = await Server.start({ name: 'other', ...(await cluster.args('store', '--role', 'decode')) });
    servers.push(other);
    const alone: CompletionReply[] = [];
    for (const prompt of PROMPTS) alone.push(await other.complete(prompt));
    sameTokens(alone.map(tokens), expected);
    assert.equal(alone.map(cached), LOADABLE);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await cluster.end();
  }
});

test.run();
