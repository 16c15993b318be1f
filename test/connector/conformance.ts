/**
 * What every connector must do, whatever it is made of. A subject says how to make a world (a store, a network, a pair of
 * engines' connectors) and what can be done to it; each scenario runs engines of harness.ts in a fresh world and looks at
 * the bytes that attention read, at the blocks that came back, and at what was computed twice.
 *
 *     conformance(subject, test);
 */
import type { KvConnector, KvRole } from 'mooncake-ts';
import { MooncakeError } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessOptions, type HarnessRequest, type RequestOptions, tokensOf } from './harness.js';

/**
 * shared: what one engine computed, any other finds (a store). handover: a prefill engine hands one request's blocks to the
 * decode engine that its parameters name. The others say what a world's methods can do.
 */
export type Capability = 'shared' | 'handover' | 'tensorParallel' | 'evict' | 'corrupt' | 'unchecked' | 'kill';

export interface World {
  /** The connector of one more engine. */
  connector(): KvConnector | Promise<KvConnector>;
  /** Takes away everything that is shared, as eviction does. */
  evict?(): Promise<void>;
  /** Changes bytes of everything that is shared. */
  corrupt?(): Promise<void>;
  /** Kills what the engines share: the store's process, the network. */
  kill?(): Promise<void>;
  /** Brings it back, empty. */
  revive?(): Promise<void>;
  /** Objects that are shared now, where they can be counted. */
  count?(): Promise<number>;
  close(): Promise<void>;
}

export interface Subject {
  readonly name: string;
  readonly capabilities: readonly Capability[];
  /** `unchecked`: without verification, for the control that shows what it is for. */
  world(options: { unchecked: boolean }): Promise<World>;
}

interface Scenario {
  name: string;
  needs: readonly Capability[];
  run(bench: Bench): Promise<void>;
}

type EngineOptions = Omit<HarnessOptions, 'connector'>;

/** A world with its engines; closes all of them. */
class Bench {
  readonly engines: HarnessEngine[] = [];
  readonly world: World;
  readonly #subject: Subject;
  #transfers = 0;

  constructor(subject: Subject, world: World) {
    this.#subject = subject;
    this.world = world;
  }

  get handover(): boolean {
    return this.has('handover');
  }

  has(capability: Capability): boolean {
    return this.#subject.capabilities.includes(capability);
  }

  async engine(options: EngineOptions = {}): Promise<HarnessEngine> {
    const role: KvRole = options.role ?? 'both';
    const engine = new HarnessEngine({ ...options, role, connector: await this.world.connector() });
    this.engines.push(engine);
    return engine;
  }

  /** The parameters of a request on the engine that computes for others. */
  give(options: RequestOptions): RequestOptions {
    if (!this.handover) return options;
    const transfer_id = `transfer-${++this.#transfers}`;
    return { ...options, maxTokens: 1, kvTransferParams: { do_remote_decode: true, transfer_id } };
  }

  /** The same prompt for the engine that takes over. */
  take(options: RequestOptions, given: HarnessRequest): RequestOptions {
    return this.handover ? { ...options, kvTransferParams: given.params ?? undefined } : options;
  }

  /** Computes a prompt on one engine; what it gives is there for others when this resolves. */
  async compute(engine: HarnessEngine, options: RequestOptions): Promise<HarnessRequest> {
    const request = engine.add(this.give(options));
    await engine.until(() => request.state === 'finished' && (this.handover || engine.idle));
    return request;
  }

  /** Computes a prompt on one engine and runs it on another. */
  async pass(from: HarnessEngine, to: HarnessEngine, options: RequestOptions): Promise<HarnessRequest> {
    const given = await this.compute(from, options);
    const taken = to.add(this.take(options, given));
    await this.drain();
    return taken;
  }

  /** Lets every engine work until all are idle. */
  async drain(): Promise<void> {
    await Promise.all(this.engines.map((engine) => engine.drain()));
  }

  /** No engine read a wrong byte or lost a block. */
  expectClean(): void {
    for (const engine of this.engines) {
      assert.equal(engine.corruptions, []);
      assert.is(engine.freeBlocks, engine.blocks, `${engine.info.engineId} keeps blocks`);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.engines.map((engine) => engine.close()));
    await this.world.close();
  }
}

const BLOCK = 4;
const PROMPT = tokensOf(1, 22);
/** Tokens of PROMPT that a connector can bring: whole blocks, and at least one token is left to compute. */
const MOST = 20;

const pause = (ms = 2) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a request's tokens must be, whoever computed them. */
async function expected(bench: Bench, options: RequestOptions, shape: EngineOptions = {}): Promise<number[]> {
  const alone = await bench.engine({ ...shape, model: 'alone', role: 'both' });
  const request = await alone.run({ ...options, kvTransferParams: undefined });
  return request.outputTokens;
}

const scenarios: Scenario[] = [];

function scenario(name: string, needs: readonly Capability[], run: Scenario['run']): void {
  scenarios.push({ name, needs, run });
}

/** Runs every scenario that the subject has the capabilities for. */
export function conformance(subject: Subject, test: (name: string, run: () => Promise<void>) => void): void {
  for (const { name, needs, run } of scenarios) {
    if (needs.some((capability) => !subject.capabilities.includes(capability))) continue;
    test(`${subject.name}: ${name}`, async () => {
      const bench = new Bench(subject, await subject.world({ unchecked: needs.includes('unchecked') }));
      try {
        await run(bench);
      } finally {
        await bench.close();
      }
    });
  }
}

// --- what arrives ----------------------------------------------------------------------------------------------------

for (const form of ['fused', 'split'] as const) {
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

// --- who may ---------------------------------------------------------------------------------------------------------

scenario('a producer never loads, a consumer never saves', ['shared'], async (bench) => {
  const consumer = await bench.engine({ role: 'consumer' });
  await consumer.run({ tokens: PROMPT });
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
  for (const [what, shape] of others) {
    const [from, to] = [await bench.engine(), await bench.engine(shape)];
    const taken = await bench.pass(from, to, { tokens: PROMPT, maxTokens: 2 });
    assert.is(taken.externalTokens, 0, `${what}: tokens of another engine came`);
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
    for (const form of ['fused', 'split'] as const) {
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

// --- many at once ----------------------------------------------------------------------------------------------------

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

// --- what goes wrong -------------------------------------------------------------------------------------------------

scenario('aborted while it computes, at every stage', [], async (bench) => {
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
});

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

scenario('evicted between lookup and load', ['shared', 'evict'], async (bench) => {
  const [from, to] = [await bench.engine(), await bench.engine()];
  await bench.compute(from, { tokens: PROMPT });
  const taken = to.add({ tokens: PROMPT, maxTokens: 4 });
  // The first step starts the lookup; when its answer has come, the next one loads.
  await to.step();
  await pause(50);
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
    await to.step();
    await pause(50);
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

scenario('killed while an engine computes and saves, at every stage', ['kill'], async (bench) => {
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
});

scenario('killed while an engine loads, at every stage', ['kill'], async (bench) => {
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
});

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
