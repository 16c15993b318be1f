// Our MooncakeStoreConnector (integrations/vllm) where a step is not like the one before: loads within the step, requests that
// are preempted, layers with windows beside layers without, and caches that are forgotten.
import { MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, differing, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { Engine, type LlmOptions } from './support/engine.js';
import { NodeService } from './support/node-service.js';
import { BLOCK, LOADABLE, PROMPTS, randomPrompt, SAVED, sum } from './support/prompts.js';

const engineTest = withVllm(test);

interface Parts {
  readonly cluster: Cluster;
  readonly service: NodeService;
  /** An engine at the service; `extra`: keys of its kv_connector_extra_config. */
  start(llm?: LlmOptions, extra?: Record<string, unknown>): Promise<Engine>;
}

/** A cluster, a service that has joined it, and engines, all of which end with `work`. */
async function withParts(work: (parts: Parts) => Promise<void>): Promise<void> {
  await Cluster.use(async (cluster) => {
    const service = await NodeService.start({ cluster });
    const engines: Engine[] = [];
    const start = async (llm?: LlmOptions, extra: Record<string, unknown> = {}) => {
      const { transfer, env } = await service.args('store');
      const config = { ...transfer.kv_connector_extra_config, ...extra };
      const name = `engine ${engines.length + 1}`;
      const engine = await Engine.start({
        name,
        env,
        llm,
        transfer: { ...transfer, kv_connector_extra_config: config },
      });
      engines.push(engine);
      return engine;
    };
    try {
      await work({ cluster, service, start });
    } finally {
      await Promise.all(engines.map((engine) => engine.stop()));
      await service.end();
    }
  });
}

engineTest('loads within the step: layer by layer, and computed where a block is corrupted', () =>
  withParts(async ({ cluster, start }) => {
    const expected = await baseline();
    const engine = await start({}, { load_async: false });
    sameTokens(await engine.generate(PROMPTS), expected);
    await cluster.holds(SAVED);
    await engine.reset();
    const loaded = await engine.generate(PROMPTS);
    sameTokens(loaded, expected);
    assert.equal(
      loaded.map(({ cached }) => cached),
      LOADABLE,
    );
    assert.is(await engine.externalTokens(), sum(LOADABLE));
    assert.is((await engine.metrics())['vllm:mooncake_ts_load_seconds_count'], PROMPTS.length);
    await engine.reset();
    await cluster.corrupt((await cluster.keys()).filter((key) => key.includes('@group:')));
    sameTokens(await engine.generate(PROMPTS), expected);
    assert.ok((await engine.metrics())['vllm:mooncake_ts_failed_loads'] > 0);
  }),
);

// Of 1,280 tokens; four prompts with their answers take 1,600.
const SMALL = { num_gpu_blocks_override: 40, max_model_len: 1024 };
const CROWD = [1, 2, 3, 4].map((i) => randomPrompt(200, 800 + i));
const LONG_ANSWER = 200;

engineTest('requests that are preempted go on with the right tokens, within and beside the step', () =>
  withParts(async ({ start }) => {
    const expected = await baseline(CROWD, { maxTokens: LONG_ANSWER });
    for (const load_async of [true, false]) {
      const engine = await start(SMALL, { load_async });
      for (let round = 0; round < 2; round++) {
        sameTokens(await engine.generate(CROWD, { maxTokens: LONG_ANSWER, together: true }), expected);
        await engine.reset();
      }
      const metrics = await engine.metrics();
      assert.ok(metrics['vllm:num_preemptions'] > 0, 'nothing was preempted');
      assert.ok((await engine.externalTokens()) > 0, 'nothing was loaded');
      await engine.stop();
    }
  }),
);

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
