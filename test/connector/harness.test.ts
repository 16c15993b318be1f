/** The harness itself: it computes right, recovers as vLLM does, and notices wrong bytes. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from './harness.js';
import { NaiveConnector } from './naive.js';

for (const form of ['fused', 'split'] as const) {
  for (const tensorParallelSize of [1, 2]) {
    test(`what one engine saves another loads: ${form}, ${tensorParallelSize} ranks`, async () => {
      const connector = new NaiveConnector();
      const tokens = tokensOf(1, 22);
      const first = new HarnessEngine({ connector, form, tensorParallelSize, maxTokensPerStep: 7 });
      const computed = await first.run({ tokens, maxTokens: 6 });
      assert.is(computed.externalTokens, 0);
      assert.is(computed.forwardTokens, 27);
      for (const async of [false, true]) {
        connector.options.async = async;
        const second = new HarnessEngine({ connector, form, tensorParallelSize });
        const loaded = await second.run({ tokens, maxTokens: 6 });
        assert.is(loaded.externalTokens, 20);
        assert.equal(loaded.outputTokens, computed.outputTokens);
        assert.equal(second.corruptions, []);
        assert.is(second.freeBlocks, second.blocks);
      }
      assert.equal(first.corruptions, []);
    });
  }
}

test('a corrupted block is noticed, in every layer and rank that reads it', async () => {
  const connector = new NaiveConnector();
  const tokens = tokensOf(2, 13);
  await new HarnessEngine({ connector }).run({ tokens });
  connector.options.corrupt = true;
  const engine = new HarnessEngine({ connector });
  await engine.run({ tokens });
  assert.ok(engine.corruptions.length > 0);
});

test('blocks that failed to load are computed again, and nothing computed on them is kept', async () => {
  for (const async of [false, true]) {
    for (const failAt of [0, 2]) {
      const connector = new NaiveConnector({ async });
      const tokens = tokensOf(3, 17);
      await new HarnessEngine({ connector }).run({ tokens });
      connector.options.failAt = failAt;
      const engine = new HarnessEngine({ connector });
      const request = engine.add({ tokens, maxTokens: 3 });
      await engine.until(() => request.failedBlocks > 0);
      connector.objects.clear();
      await engine.drain();
      assert.is(request.externalTokens, 4 * failAt);
      assert.equal(engine.corruptions, []);
      assert.is(engine.freeBlocks, engine.blocks);
    }
  }
});

test('requests share blocks locally, are preempted when blocks run out, and come back', async () => {
  const engine = new HarnessEngine({
    connector: new NaiveConnector(),
    blocks: 12,
    localPrefixCache: true,
    maxTokensPerStep: 16,
  });
  const prompts = [0, 1, 2, 3, 4].map((i) => ({ tokens: [...tokensOf(5, 12), ...tokensOf(i, 5)], maxTokens: 12 }));
  const requests = prompts.map((prompt) => engine.add(prompt));
  await engine.drain();
  assert.ok(requests.some(({ preempted }) => preempted));
  assert.ok(requests.some(({ localTokens }) => localTokens > 0));
  assert.equal(engine.corruptions, []);
  assert.is(engine.freeBlocks, 12);
});

test('an aborted request gives its blocks back, whatever it was doing', async () => {
  for (let steps = 0; steps < 6; steps++) {
    const engine = new HarnessEngine({ connector: new NaiveConnector(), maxTokensPerStep: 5 });
    const request = engine.add({ tokens: tokensOf(1, 12), maxTokens: 4 });
    for (let i = 0; i < steps; i++) await engine.step();
    engine.abort(request);
    await engine.drain();
    assert.is(engine.freeBlocks, engine.blocks);
  }
});

test.run();
