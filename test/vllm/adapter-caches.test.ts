// Our MooncakeStoreConnector (integrations/vllm) and what is in the caches: those that are forgotten, events of what they hold, and
// layers with windows beside layers without.
import { MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, differing, sameTokens } from './support/baseline.js';
import { withParts } from './support/parts.js';
import { BLOCK, LOADABLE, PROMPTS, SAVED, sum } from './support/prompts.js';

const engineTest = withVllm(test);

engineTest('caches that are forgotten: the store’s too, of this model alone', () =>
  withParts(async ({ cluster, start }) => {
    const expected = await baseline();
    const store = await MooncakeStore.connect({ master: cluster.address, metadata: 'p2p' });
    try {
      const other = 'another model@strict:0123@group:0@ff';
      await store.put(other, new Uint8Array(32));
      const engine = await start();
      sameTokens(await engine.generate(PROMPTS), expected);
      await cluster.holds(SAVED + 1);
      await engine.reset(true);
      assert.equal(await cluster.keys(), [other]);
      const computed = await engine.generate(PROMPTS);
      sameTokens(computed, expected);
      assert.is(sum(computed.map(({ cached }) => cached)), 0);
      await cluster.holds(SAVED + 1);
      await engine.reset();
      sameTokens(await engine.generate(PROMPTS), expected);
      assert.is(await engine.externalTokens(), sum(LOADABLE));
    } finally {
      await store.close();
    }
  }),
);

engineTest('KV events: blocks that were loaded, and blocks that were saved', () =>
  withParts(async ({ cluster, start }) => {
    const expected = await baseline();
    const engine = await start({ kv_events: true });
    /** In-process engines hear of saves in the steps of the next request. */
    const stored = async (medium: string) => {
      await engine.generate([[5, 6, 7]], { maxTokens: 2 });
      const events = await engine.events();
      return events.filter((event) => event.type === 'BlockStored' && event.medium === medium);
    };
    sameTokens(await engine.generate(PROMPTS), expected);
    await cluster.holds(SAVED);
    const saved = await stored('cpu');
    // Of each prompt a chain from the start, of the prompt's tokens; then those that were generated.
    for (const prompt of PROMPTS) {
      let parent: string | null = null;
      for (let at = 0; at + BLOCK <= prompt.length; at += BLOCK) {
        const tokens = prompt.slice(at, at + BLOCK);
        const event = saved.find((one) => one.parent === parent && String(one.tokens) === String(tokens));
        assert.ok(event, `no event of tokens ${at} to ${at + BLOCK} of a prompt of ${prompt.length}`);
        parent = event.hashes[0];
      }
    }
    assert.is(new Set(saved.flatMap(({ hashes }) => hashes)).size, saved.length, 'each is announced once');

    await engine.reset();
    await engine.events();
    sameTokens(await engine.generate(PROMPTS), expected);
    assert.is(await engine.externalTokens(), sum(LOADABLE));
    const loaded = new Set((await stored('GPU')).flatMap(({ hashes }) => hashes));
    for (const { hashes } of saved) assert.ok(loaded.has(hashes[0]), 'a loaded block is announced as the engine’s');
  }),
);

// Layers that see 96 tokens, beside layers that see all: two groups of blocks.
const HYBRID = {
  hf_overrides: {
    sliding_window: 96,
    layer_types: ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],
  },
};

engineTest('layers with a window beside layers without', () =>
  withParts(async ({ cluster, start }) => {
    const expected = await baseline(PROMPTS, { llm: HYBRID });
    assert.is.not(
      differing(
        PROMPTS.map((_, i) => ({ tokens: expected[i] })),
        await baseline(),
      ),
      0,
    );
    const a = await start(HYBRID);
    sameTokens(await a.generate(PROMPTS), expected);
    await a.stop();
    const keys = await cluster.keys();
    for (const group of [0, 1])
      assert.ok(
        keys.some((key) => key.includes(`@group:${group}@`)),
        `group ${group}`,
      );
    const b = await start(HYBRID);
    const loaded = await b.generate(PROMPTS);
    sameTokens(loaded, expected);
    assert.equal(
      loaded.map(({ cached }) => cached),
      LOADABLE,
    );
    await b.reset();
    // What is loaded is what is used.
    await cluster.corrupt((await cluster.keys()).filter((key) => key.includes('@group:1@')));
    sameTokens(await b.generate(PROMPTS), expected);
    assert.ok((await b.metrics())['vllm:mooncake_ts_failed_loads'] > 0);
  }),
);

test.run();
