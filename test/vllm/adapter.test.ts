// Our MooncakeStoreConnector (integrations/vllm) in real engines, by the node service: what one saved another loads, a
// corrupted block is never served, and a service that dies costs the sharing alone. With vLLM's default policy for failed
// loads, which ends a request without a token unless the adapter says otherwise.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { Engine } from './support/engine.js';
import { NodeService } from './support/node-service.js';
import { PROMPTS } from './support/prompts.js';

const engineTest = withVllm(test);
const BLOCK = 32;
/** Of the longest prefix of whole blocks the last token is computed: 64 tokens are one block from outside. */
const LOADABLE = PROMPTS.map(({ length }) => Math.floor((length - 1) / BLOCK) * BLOCK);
const SAVED = PROMPTS.reduce((sum, { length }) => sum + Math.floor(length / BLOCK), 0);
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** Forgets the engine's own cache. In this process's engine nothing steps between requests: blocks that a request kept
 * until they were saved are freed by the steps of the next one. */
async function forget(engine: Engine) {
  await engine.generate([[5, 6, 7]], { maxTokens: 2 });
  await engine.reset();
}

engineTest('A saves, A exits, B loads; the service is killed, and comes back', () =>
  NodeService.use(async (service) => {
    const expected = await baseline();
    const a = await service.engine('A');
    sameTokens(await a.generate(PROMPTS), expected);
    assert.is(await a.externalTokens(), 0);
    await a.stop();
    const b = await service.engine('B');
    try {
      const loaded = await b.generate(PROMPTS);
      sameTokens(loaded, expected);
      assert.equal(
        loaded.map((one) => one.cached),
        LOADABLE,
      );
      assert.is(await b.externalTokens(), sum(LOADABLE));

      await forget(b);
      await service.kill();
      const alone = await b.generate(PROMPTS);
      sameTokens(alone, expected);
      assert.is(sum(alone.map((one) => one.cached)), 0);

      // The new service's store is empty: saved again, and loaded. The engine attaches between two steps.
      await service.again();
      const deadline = Date.now() + 60_000;
      for (;;) {
        await forget(b);
        sameTokens(await b.generate(PROMPTS), expected);
        if ((await b.externalTokens()) >= 2 * sum(LOADABLE)) break;
        assert.ok(Date.now() < deadline, 'nothing was loaded from the second service');
      }
    } finally {
      await b.stop();
    }
  }),
);

engineTest('a corrupted block is computed, not served; a node that is gone costs the sharing alone', async () => {
  const expected = await baseline();
  const cluster = await Cluster.start();
  try {
    await NodeService.use(
      async (service) => {
        const engine = await service.engine('C');
        try {
          sameTokens(await engine.generate(PROMPTS), expected);
          await cluster.holds(SAVED);
          await forget(engine);
          const loaded = await engine.generate(PROMPTS);
          sameTokens(loaded, expected);
          assert.is(await engine.externalTokens(), sum(LOADABLE));

          await forget(engine);
          // The stock connector gives other tokens for these bytes (store.test.ts).
          await cluster.corrupt((await cluster.keys()).filter((key) => key.includes('@group:')));
          sameTokens(await engine.generate(PROMPTS), expected);
          assert.ok((await engine.metrics())['vllm:mooncake_ts_failed_loads'] > 0);

          await forget(engine);
          await cluster.killNode();
          sameTokens(await engine.generate(PROMPTS), expected);
        } finally {
          await engine.stop();
        }
      },
      { cluster },
    );
  } finally {
    await cluster.end();
  }
});

engineTest(
  "integrity stock: objects are shared with vLLM's own connector, both ways, at the stock master",
  async () => {
    const expected = await baseline();
    const cluster = await Cluster.start({ master: 'stock', node: 'stock' });
    const [first, second] = [PROMPTS.slice(0, 2), PROMPTS.slice(2)];
    try {
      await NodeService.use(
        async (service) => {
          const stock = () => cluster.args('store').then((args) => Engine.start({ name: 'stock', ...args }));
          const theirs = await stock();
          sameTokens(await theirs.generate(first), expected.slice(0, 2));
          await cluster.holds(sum(first.map(({ length }) => Math.floor(length / BLOCK))));
          await theirs.stop();

          const { transfer, env } = await service.args('store');
          const extra = { ...transfer.kv_connector_extra_config, integrity: 'stock' };
          const ours = await Engine.start({
            name: 'ours',
            env,
            transfer: { ...transfer, kv_connector_extra_config: extra },
          });
          sameTokens(await ours.generate(PROMPTS), expected);
          assert.is(await ours.externalTokens(), sum(LOADABLE.slice(0, 2)));
          await cluster.holds(SAVED);
          await ours.stop();

          const again = await stock();
          sameTokens(await again.generate(second), expected.slice(2));
          assert.is(await again.externalTokens(), sum(LOADABLE.slice(2)));
          await again.stop();
        },
        { cluster },
      );
    } finally {
      await cluster.end();
    }
  },
);

test.run();
