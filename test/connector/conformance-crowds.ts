/** Many requests at once: equal ones, unordered ones, more than fit. */
import * as assert from 'uvu/assert';
import { BLOCK, type Capability, expected, MOST, PROMPT, pause, type Scenario } from './conformance-bench.js';
import { tokensOf } from './harness.js';

export const crowds: Scenario[] = [];

const scenario = (name: string, needs: readonly Capability[], run: Scenario['run']) =>
  void crowds.push({ name, needs, run });

scenario('the same prompt many times at once', [], async (bench) => {
  const [from, to] = [await bench.engine({ maxTokensPerStep: 30 }), await bench.engine()];
  const given = Array.from({ length: 3 }, () => from.add(bench.give({ tokens: PROMPT })));
  await from.until(() => given.every(({ state }) => state === 'finished') && (bench.handover || from.idle));
  if (bench.world.count)
    assert.is(await bench.world.count(), Math.floor(PROMPT.length / BLOCK), 'each block is kept once');
  const taken = given.map((each) => to.add(bench.take({ tokens: PROMPT, maxTokens: 3 }, each)));
  await bench.drain();
  for (const each of taken) assert.ok(each.externalTokens >= MOST);
  bench.expectClean();
});

scenario('blocks that a request shares in the step that computes them', ['shared'], async (bench) => {
  const options = { tokens: tokensOf(50, 10), maxTokens: 40 };
  const all = [...options.tokens, ...(await expected(bench, options))];
  const from = await bench.engine({ localPrefixCache: true, layers: 4 });
  const first = from.add(options);
  await from.until(() => first.state === 'running');
  // One begins in every step, whatever block the first is just filling.
  const others = [];
  for (let i = 0; i < 8; i++) {
    others.push(from.add({ tokens: [...all.slice(0, 30), ...tokensOf(51 + i, 5)] }));
    await from.step();
    await pause();
  }
  await from.drain();
  assert.ok(others.every(({ localTokens }) => localTokens > 0));
  const to = await bench.engine({ layers: 4 });
  assert.ok((await to.run({ tokens: all, maxTokens: 2 })).externalTokens >= 48);
  for (const { tokens } of others) await to.run({ tokens });
  bench.expectClean();
});

scenario('requests that end in another order than they began', [], async (bench) => {
  const [from, to] = [await bench.engine({ maxTokensPerStep: 11 }), await bench.engine({ maxTokensPerStep: 13 })];
  const prompts = Array.from({ length: 8 }, (_, i) => ({
    tokens: tokensOf(60 + i, 30 - 3 * i),
    maxTokens: 1 + ((i * 5) % 7),
  }));
  const given = prompts.map((prompt) => from.add(bench.give(prompt)));
  await from.until(() => given.every(({ state }) => state === 'finished') && (bench.handover || from.idle));
  const taken = prompts.map((prompt, i) => to.add(bench.take(prompt, given[i]))).reverse();
  await bench.drain();
  for (const each of taken) {
    assert.ok(each.externalTokens >= Math.floor((each.numPromptTokens - 1) / BLOCK) * BLOCK);
    assert.is(each.outputTokens.length, each.maxTokens);
  }
  bench.expectClean();
});

scenario('preemption and resume, on both sides', [], async (bench) => {
  // Room for about half of the requests: they take each other's blocks all the time.
  const shape = { blocks: 17, maxTokensPerStep: 12 };
  const [from, to] = [await bench.engine(bench.handover ? {} : shape), await bench.engine(shape)];
  const prompts = Array.from({ length: 6 }, (_, i) => ({ tokens: tokensOf(70 + i, 14), maxTokens: 9 }));
  const given = prompts.map((prompt) => from.add(bench.give(prompt)));
  await from.until(() => given.every(({ state }) => state === 'finished') && (bench.handover || from.idle));
  const taken = prompts.map((prompt, i) => to.add(bench.take(prompt, given[i])));
  let steps = 0;
  await Promise.all([
    from.drain(),
    to.until(() => {
      const running = taken.find(({ state }) => state === 'running');
      if (running && ++steps % 5 === 0) to.preempt(running);
      return to.idle;
    }),
  ]);
  assert.ok(taken.some(({ preempted }) => preempted));
  for (const [i, each] of taken.entries()) {
    assert.is(each.outputTokens.length, 9);
    if (!bench.handover) assert.equal(each.tokens, given[i].tokens);
  }
  bench.expectClean();
});
