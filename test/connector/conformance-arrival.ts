/** What arrives, and who may: bytes of every shape, prompts of every length, engines that fit and that do not. */
import * as assert from 'uvu/assert';
import {
  BLOCK,
  type Capability,
  type EngineOptions,
  expected,
  MOST,
  PROMPT,
  type Scenario,
} from './conformance-bench.js';
import { tokensOf } from './harness.js';

export const arrival: Scenario[] = [];

const scenario = (name: string, needs: readonly Capability[], run: Scenario['run']) =>
  void arrival.push({ name, needs, run });

for (const form of ['fused', 'split', 'latent'] as const) {
  scenario(`save and load, ${form}`, [], async (bench) => {
    const options = { tokens: PROMPT, maxTokens: 6 };
    const [from, to] = [await bench.engine({ form }), await bench.engine({ form })];
    const taken = await bench.pass(from, to, options);
    assert.ok(taken.externalTokens >= MOST, `${taken.externalTokens} tokens came`);
    assert.ok(taken.forwardTokens < PROMPT.length, 'nothing was saved');
    assert.equal(taken.outputTokens, await expected(bench, options));
    bench.expectClean();
  });
}

scenario('save and load on two ranks', ['tensorParallel'], async (bench) => {
  const shape = { tensorParallelSize: 2 };
  const taken = await bench.pass(await bench.engine(shape), await bench.engine(shape), {
    tokens: PROMPT,
    maxTokens: 3,
  });
  assert.ok(taken.externalTokens >= MOST);
  bench.expectClean();
});

scenario('prompts of every length, whole blocks included', [], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  for (let length = 1; length <= 3 * BLOCK + 1; length++) {
    const taken = await bench.pass(from, to, { tokens: tokensOf(length, length), maxTokens: 2 });
    const least = Math.floor((length - 1) / BLOCK) * BLOCK;
    assert.ok(taken.externalTokens >= least, `${taken.externalTokens} of ${length} tokens came`);
    assert.is(taken.outputTokens.length, 2);
  }
  bench.expectClean();
});

scenario('chunked prefill', [], async (bench) => {
  for (const [index, maxTokensPerStep] of [1, 3, 4, 9].entries()) {
    const [from, to] = [await bench.engine({ maxTokensPerStep }), await bench.engine({ maxTokensPerStep })];
    const taken = await bench.pass(from, to, { tokens: tokensOf(40 + index, 19), maxTokens: 3 });
    assert.ok(taken.externalTokens >= 16, `${taken.externalTokens} tokens came in steps of ${maxTokensPerStep}`);
  }
  bench.expectClean();
});

scenario('partial hits: the shared beginning, and not a token more', ['shared'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.compute(from, { tokens: PROMPT });
  for (let shared = 0; shared <= 20; shared += 3) {
    const tokens = [...PROMPT.slice(0, shared), ...tokensOf(100 + shared, 9)];
    const taken = await to.run({ tokens });
    assert.is(taken.externalTokens, Math.floor(shared / BLOCK) * BLOCK);
  }
  bench.expectClean();
});

scenario('blocks of generated tokens', ['shared'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  const given = await bench.compute(from, { tokens: tokensOf(2, 6), maxTokens: 15 });
  const taken = await to.run({ tokens: [...given.tokens, 7], maxTokens: 2 });
  assert.is(taken.externalTokens, 20);
  bench.expectClean();
});

scenario('a beginning that the engine has itself is not loaded', ['shared'], async (bench) => {
  const from = await bench.engine();
  await bench.compute(from, { tokens: PROMPT });
  const to = await bench.engine({ localPrefixCache: true, role: 'consumer' });
  const running = to.add({ tokens: [...PROMPT.slice(0, 9), 1], maxTokens: 40 });
  await to.until(() => running.outputTokens.length > 1);
  const taken = to.add({ tokens: PROMPT, maxTokens: 2 });
  await to.drain();
  assert.is(taken.localTokens, 8);
  assert.is(taken.externalTokens, 12);
  bench.expectClean();
});

scenario('an adapter has blocks of its own', ['shared'], async (bench) => {
  const adapted = (name: string) => ({ tokens: PROMPT, adapter: name, extraKeys: Array(5).fill([['lora', name, '']]) });
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.compute(from, adapted('sql'));
  assert.is((await to.run({ tokens: PROMPT })).externalTokens, 0);
  assert.is((await to.run(adapted('chess'))).externalTokens, 0);
  assert.is((await to.run(adapted('sql'))).externalTokens, MOST);
  bench.expectClean();
});

scenario('a producer never loads, a consumer never saves', ['shared'], async (bench) => {
  const consumer = await bench.engine({ role: 'consumer' });
  await consumer.run({ tokens: PROMPT });
  assert.is((await consumer.run({ tokens: PROMPT })).externalTokens, 0);
  const producer = await bench.engine({ role: 'producer' });
  assert.is((await producer.run({ tokens: PROMPT })).externalTokens, 0);
  assert.is((await producer.run({ tokens: PROMPT })).externalTokens, 0);
  assert.is((await consumer.run({ tokens: PROMPT })).externalTokens, MOST);
  bench.expectClean();
});

scenario('engines that differ in what the bytes depend on never meet', [], async (bench) => {
  const others: [string, EngineOptions][] = [
    ['model', { model: 'another' }],
    ['layers', { layers: 3 }],
    ['heads', { heads: 8 }],
    ['bytes of a cell', { cellBytes: 16 }],
    ['block size', { blockSize: 8 }],
    ['seed', { hash: { seed: 'another' } }],
    ['algorithm', { hash: { algorithm: 'sha256' } }],
  ];
  // A hand-over knows both layouts and puts the cells where they belong; shared bytes lie as they were saved.
  if (bench.has('shared')) others.push(['order of cells', { form: 'split' }]);
  for (const [what, shape] of others) {
    const [from, to] = [await bench.engine(), await bench.engine(shape)];
    const taken = await bench.pass(from, to, { tokens: PROMPT, maxTokens: 2 });
    assert.is(taken.externalTokens, 0, `${what}: tokens of another engine came`);
    if (bench.has('shared')) assert.is(taken.failedBlocks, 0, `${what}: blocks of another engine were found`);
    assert.is(taken.outputTokens.length, 2);
  }
  bench.expectClean();
});

for (const [from, to] of [
  [1, 2],
  [2, 1],
  [1, 4],
  [4, 2],
  [2, 4],
]) {
  scenario(`${from} ranks to ${to}`, ['tensorParallel'], async (bench) => {
    for (const form of ['fused', 'split', 'latent'] as const) {
      const taken = await bench.pass(
        await bench.engine({ form, tensorParallelSize: from, model: form }),
        await bench.engine({ form, tensorParallelSize: to, model: form }),
        { tokens: PROMPT, maxTokens: 3 },
      );
      assert.ok(taken.externalTokens >= MOST, `${form}: ${taken.externalTokens} tokens came`);
    }
    bench.expectClean();
  });
}
