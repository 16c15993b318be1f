// vLLM's own MooncakeStoreConnector (the stock wheel) in a cluster of ours: what one engine saved another loads, and the
// tokens are those of an engine without a connector.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, differing, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { LOADABLE, PROMPTS, SAVED, sum } from './support/prompts.js';

const engineTest = withVllm(test);

engineTest('A saves, A exits, B loads; then a corrupted block shows', () =>
  Cluster.use(async (cluster) => {
    const expected = await baseline();
    const a = await cluster.engine('A');
    sameTokens(await a.generate(PROMPTS), expected);
    assert.is(await a.externalTokens(), 0);
    await cluster.holds(SAVED);
    await a.stop();
    const b = await cluster.engine('B');
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
  Cluster.use(async (cluster) => {
    const expected = await baseline();
    const engines = await Promise.all(['C', 'D'].map((name) => cluster.engine(name)));
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

test.run();
