/** What goes wrong: aborts, evictions, corruption, deaths, at every stage. */
import { MooncakeError } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { type Capability, expected, MOST, PROMPT, pause, type Scenario } from './conformance-bench.js';
import { type HarnessEngine, type HarnessRequest, tokensOf } from './harness.js';

export const faults: Scenario[] = [];

const scenario = (name: string, needs: readonly Capability[], run: Scenario['run'], abandons = false) =>
  void faults.push({ name, needs, run, abandons });

const abortedWhileComputing: Scenario['run'] = async (bench) => {
  for (let steps = 0; steps < 9; steps++) {
    const engine = await bench.engine({ maxTokensPerStep: 5 });
    const options = { tokens: tokensOf(80 + steps, 18), maxTokens: 3 };
    const request = engine.add(bench.give(options));
    for (let i = 0; i < steps; i++) await engine.step();
    engine.abort(request);
    await engine.drain();
    assert.is(engine.freeBlocks, engine.blocks, `blocks are lost after ${steps} steps`);
    // Whatever the aborted request left is right, or it is not there.
    await bench.pass(engine, await bench.engine(), { ...options });
  }
  bench.expectClean();
};
scenario('aborted while it computes, at every stage', [], abortedWhileComputing, true);

scenario('aborted while it loads, at every stage', [], async (bench) => {
  for (let steps = 0; steps < 9; steps++) {
    const [from, to] = [await bench.engine(), await bench.engine()];
    const options = { tokens: tokensOf(90 + steps, 18), maxTokens: 3 };
    const given = await bench.compute(from, options);
    const request = to.add(bench.take(options, given));
    for (let i = 0; i < steps; i++) {
      await to.step();
      if (i % 2 === 1) await pause(1);
    }
    to.abort(request);
    await bench.drain();
    assert.is(to.freeBlocks, to.blocks, `blocks are lost after ${steps} steps`);
    const again = await bench.pass(from, to, options);
    assert.is(again.outputTokens.length, 3);
  }
  bench.expectClean();
});

/** Waits until the connector knows what it has of a waiting request; the engine's next step loads it. */
async function lookedUp({ scheduler }: HarnessEngine, request: HarnessRequest): Promise<void> {
  while (scheduler.getNumNewMatchedTokens(request, 0)[0] === null) await pause();
}

scenario('evicted between lookup and load', ['shared', 'evict'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.compute(from, { tokens: PROMPT });
  const taken = to.add({ tokens: PROMPT, maxTokens: 4 });
  await lookedUp(to, taken);
  await bench.world.evict!();
  await bench.drain();
  assert.ok(taken.failedBlocks > 0, 'the load found what was taken away');
  assert.is(taken.externalTokens, 0);
  assert.equal(taken.outputTokens, await expected(bench, { tokens: PROMPT, maxTokens: 4 }));
  // What was computed again is there again.
  assert.is((await (await bench.engine()).run({ tokens: PROMPT })).externalTokens, MOST);
  bench.expectClean();
});

scenario('evicted at every stage of a load', ['shared', 'evict'], async (bench) => {
  for (let steps = 0; steps < 6; steps++) {
    const [from, to] = [await bench.engine(), await bench.engine({ maxTokensPerStep: 8 })];
    const options = { tokens: tokensOf(110 + steps, 23), maxTokens: 3 };
    await bench.compute(from, options);
    const request = to.add(options);
    for (let i = 0; i < steps; i++) await to.step();
    await bench.world.evict!();
    await bench.drain();
    assert.is(request.outputTokens.length, 3);
  }
  bench.expectClean();
});

scenario('corrupted blocks are computed again, and kept anew', ['shared', 'corrupt'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.compute(from, { tokens: PROMPT });
  await bench.world.corrupt!();
  const taken = await to.run({ tokens: PROMPT, maxTokens: 5 });
  assert.ok(taken.failedBlocks > 0, 'nobody noticed');
  assert.is(taken.externalTokens, 0);
  assert.equal(taken.outputTokens, await expected(bench, { tokens: PROMPT, maxTokens: 5 }));
  assert.is((await (await bench.engine()).run({ tokens: PROMPT })).externalTokens, MOST);
  bench.expectClean();
});

scenario('corrupted blocks of a deployment of another size', ['shared', 'corrupt', 'tensorParallel'], async (bench) => {
  for (const [given, taken] of [
    [1, 2],
    [2, 1],
    [4, 2],
  ]) {
    const model = `${given} to ${taken}`;
    const tokens = tokensOf(160 + given, 22);
    await bench.compute(await bench.engine({ model, tensorParallelSize: given }), { tokens });
    await bench.world.corrupt!();
    const request = await (await bench.engine({ model, tensorParallelSize: taken })).run({ tokens, maxTokens: 3 });
    assert.ok(request.failedBlocks > 0, `${model}: nobody noticed`);
  }
  bench.expectClean();
});

scenario('what was computed on a failed load is not kept', ['shared', 'evict'], async (bench) => {
  for (const tensorParallelSize of bench.has('tensorParallel') ? [1, 2] : [1]) {
    const shape = { tensorParallelSize, layers: 3 };
    const [from, to] = [await bench.engine(shape), await bench.engine(shape)];
    const tokens = tokensOf(170 + tensorParallelSize, 23);
    await bench.compute(from, { tokens: tokens.slice(0, 9) });
    const taken = to.add({ tokens, maxTokens: 3 });
    await lookedUp(to, taken);
    await bench.world.evict!();
    await to.drain();
    assert.ok(taken.failedBlocks > 0, 'the load found what was taken away');
    // Had anything wrong been kept, this engine would read it.
    const after = await (await bench.engine(shape)).run({ tokens, maxTokens: 3 });
    assert.is(after.externalTokens, 20);
  }
  bench.expectClean();
});

scenario(
  'without checks, corrupted blocks are read: the control',
  ['shared', 'corrupt', 'unchecked'],
  async (bench) => {
    const from = await bench.engine();
    await bench.compute(from, { tokens: PROMPT });
    await bench.world.corrupt!();
    const to = await bench.engine();
    const taken = await to.run({ tokens: PROMPT });
    assert.ok(taken.externalTokens > 0);
    assert.ok(to.corruptions.length > 0, 'the harness cannot see corruption');
  },
);

const killedWhileComputing: Scenario['run'] = async (bench) => {
  for (let steps = 0; steps < 6; steps++) {
    const from = await bench.engine({ maxTokensPerStep: 5 });
    const request = from.add(bench.give({ tokens: tokensOf(120 + steps, 18), maxTokens: 2 }));
    for (let i = 0; i < steps; i++) await from.step();
    await bench.world.kill!();
    await from.drain();
    assert.is(request.state, 'finished');
    await bench.world.revive!();
  }
  bench.expectClean();
};
scenario('killed while an engine computes and saves, at every stage', ['kill'], killedWhileComputing, true);

const killedWhileLoading: Scenario['run'] = async (bench) => {
  for (let steps = 0; steps < 6; steps++) {
    const [from, to] = [await bench.engine(), await bench.engine()];
    const options = { tokens: tokensOf(130 + steps, 27), maxTokens: 3 };
    const tokens = await expected(bench, options);
    const given = await bench.compute(from, options);
    const request = to.add(bench.take(options, given));
    for (let i = 0; i < steps; i++) await to.step();
    const step = to.step();
    await bench.world.kill!();
    await step;
    await bench.drain();
    assert.is(request.outputTokens.length, 3);
    assert.equal(request.outputTokens, tokens);
    await bench.world.revive!();
  }
  bench.expectClean();
};
scenario('killed while an engine loads, at every stage', ['kill'], killedWhileLoading, true);

scenario('after a kill and a revival, engines share again', ['shared', 'kill'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.pass(from, to, { tokens: PROMPT });
  await bench.world.kill!();
  assert.is((await to.run({ tokens: PROMPT, maxTokens: 3 })).externalTokens, 0);
  await bench.world.revive!();
  // The connection may take a moment to be made again.
  for (let attempt = 0; attempt < 20; attempt++) {
    await bench.compute(from, { tokens: PROMPT });
    if ((await to.run({ tokens: PROMPT, maxTokens: 3 })).externalTokens === MOST) break;
    await pause(100);
  }
  assert.is((await to.run({ tokens: PROMPT, maxTokens: 3 })).externalTokens, MOST);
  bench.expectClean();
});

scenario('shut down in the middle of everything', [], async (bench) => {
  for (let steps = 0; steps < 5; steps++) {
    const [from, to] = [await bench.engine(), await bench.engine()];
    const options = { tokens: tokensOf(140 + steps, 25), maxTokens: 3 };
    const given = await bench.compute(from, options);
    to.add(bench.take(options, given));
    to.add({ tokens: tokensOf(150 + steps, 25), maxTokens: 3 });
    for (let i = 0; i < steps; i++) await to.step();
    await to.close();
    await from.close();
  }
});

scenario('tokens that no model has are refused or computed, and hurt nobody else', [], async (bench) => {
  const engine = await bench.engine();
  try {
    engine.add({ tokens: [1, 2, 3, 4, -5, 6, 7, 8, 9], maxTokens: 2 });
  } catch (error) {
    assert.instance(error, MooncakeError);
  }
  const other = engine.add({ tokens: PROMPT, maxTokens: 2 });
  await engine.drain();
  assert.is(other.outputTokens.length, 2);
  bench.expectClean();
});
