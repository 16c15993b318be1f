// Our connectors (integrations/vllm) in a prefill and a decode server, by one node service: MultiConnector of MooncakeConnector
// and MooncakeStoreConnector. The test plays the proxy; that of mooncake-ts has tests of its own.
import { randomUUID } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort } from '../support/masters.js';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { NodeService } from './support/node-service.js';
import { PROMPTS } from './support/prompts.js';
import { type CompletionReply, Server } from './support/server.js';

const engineTest = withVllm(test);
const EXTERNAL = 'vllm:external_prefix_cache_hits_total';
const tokens = (reply: CompletionReply) => ({ tokens: reply.choices[0].token_ids });

engineTest('one prefill and one decode; a prefill that is killed is not waited for', async () => {
  const expected = await baseline();
  const service = await NodeService.start();
  const servers: Server[] = [];
  try {
    const flags = ['--bootstrap-port', `${await freePort()}`];
    const [prefill, decode] = await Server.startAll(servers, [
      { name: 'prefill', ...(await service.args('multi', '--role', 'prefill', ...flags)) },
      { name: 'decode', ...(await service.args('multi', '--role', 'decode', ...flags)) },
    ]);

    const prefilled = async (prompt: number[]) => {
      const kv_transfer_params = {
        do_remote_decode: true,
        do_remote_prefill: false,
        transfer_id: `xfer-${randomUUID()}`,
      };
      const reply = await prefill.complete(prompt, { max_tokens: 1, kv_transfer_params });
      assert.ok(reply.kv_transfer_params, 'the prefill says where its blocks are');
      return reply.kv_transfer_params;
    };
    for (const [i, prompt] of PROMPTS.entries()) {
      const kv_transfer_params = await prefilled(prompt);
      sameTokens([tokens(await decode.complete(prompt, { kv_transfer_params }))], [expected[i]]);
    }
    // All of each prompt but the token that is computed again.
    const handed = PROMPTS.reduce((sum, { length }) => sum + length, 0);
    assert.ok((await decode.metrics())[EXTERNAL] >= handed - PROMPTS.length);

    const lost = await prefilled([...PROMPTS[2]].reverse());
    await prefill.kill();
    const reply = await decode.complete([...PROMPTS[2]].reverse(), { kv_transfer_params: lost });
    assert.is(reply.choices[0].token_ids.length, 40);
    sameTokens([tokens(await decode.complete(PROMPTS[1]))], [expected[1]]);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await service.end();
  }
});

test.run();
