// Our MooncakeStoreConnector (integrations/vllm) where a step is not like the one before: loads within the step, and requests
// that are preempted.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { withParts } from './support/parts.js';
import { LOADABLE, PROMPTS, randomPrompt, SAVED, sum } from './support/prompts.js';

const engineTest = withVllm(test);

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

test.run();
