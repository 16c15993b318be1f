// The engine without a connector: its tokens are those of a run without a cache, whatever else happens meanwhile.
import fc from 'fast-check';
import { MooncakeError } from 'mooncake-ts';
import {
  type EngineOptions,
  EOS,
  encode,
  GENERATED,
  type GenerateOptions,
  ReferenceEngine,
} from 'mooncake-ts/reference-engine';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { expected, model, SMALL, text } from './support/small.js';

async function withEngine(options: EngineOptions, use: (engine: ReferenceEngine) => Promise<void>): Promise<void> {
  const engine = new ReferenceEngine({ model, blocks: 64, ...options });
  try {
    await use(engine);
  } finally {
    await engine.close();
  }
}

async function rejects(promise: Promise<unknown>, code: string): Promise<MooncakeError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  assert.instance(error, MooncakeError);
  assert.is(error.code, code);
  return error;
}

/** The cache of the only rank. */
function cacheOf(engine: ReferenceEngine) {
  const [cache] = engine.caches;
  return {
    memories: cache.memories,
    values: cache.values,
    at: (layer: number, block: number, head: number) => cache.at(layer, block, head),
  };
}

const ask: GenerateOptions = { maxTokens: 12, ignoreEos: true };
const prompts = ['a', text('short', 20), text('longer', 90), text('longest', 200)];

test('tokens are those of a run without a cache, alone or in a batch, whatever the chunk and the ranks', async () => {
  for (const options of [
    {},
    { maxBatchedTokens: 1 },
    { maxBatchedTokens: 17 },
    { tensorParallelSize: 2 },
    { blockSize: 3 },
  ]) {
    await withEngine({ blocks: 256, ...options }, async (engine) => {
      const results = await Promise.all(prompts.map((prompt) => engine.generate(prompt, ask).result));
      for (const [i, { tokens, cached, promptTokens, finishReason }] of results.entries()) {
        assert.equal(
          tokens,
          expected([...encode(prompts[i])], 12),
          `${prompts[i].length} bytes, ${JSON.stringify(options)}`,
        );
        assert.is(finishReason, 'length');
        assert.equal(cached, { local: 0, external: 0, none: promptTokens });
      }
    });
  }
});

test('a prefix computed before is found again, up to the last full block', async () => {
  await withEngine({}, async (engine) => {
    const prompt = [...encode(text('conversation', 79))];
    const first = await engine.generate(prompt, ask).result;
    assert.equal(first.cached, { local: 0, external: 0, none: 80 });
    const again = await engine.generate(prompt, ask).result;
    // 80 tokens fill five blocks, but the last token is always computed.
    assert.equal(again.cached, { local: 64, external: 0, none: 16 });
    assert.equal(again.tokens, first.tokens);

    const next = [...prompt, ...first.tokens, ...encode(' and then?', { start: false })];
    const second = await engine.generate(next, ask).result;
    // The output filled a part of the sixth block, whose last token the model never saw as input.
    assert.equal(second.cached, { local: 80, external: 0, none: 22 });
    assert.equal(second.tokens, expected(next, 12));

    const salted = await engine.generate(prompt, { ...ask, cacheSalt: 'tenant' }).result;
    assert.is(salted.cached.local, 0);
    engine.resetPrefixCache();
    const fresh = await engine.generate(prompt, ask).result;
    assert.is(fresh.cached.local, 0);
    assert.equal([salted.tokens, fresh.tokens], [first.tokens, first.tokens]);
  });
});

test('wrong bytes in cached blocks change the tokens, blocks in the wrong places too', async () => {
  await withEngine({}, async (engine) => {
    const prompt = [...encode(text('corrupt me', 79))];
    const right = await engine.generate(prompt, ask).result;
    const { memories, values, at } = cacheOf(engine);
    const changed = async (what: string) => {
      const wrong = await engine.generate(prompt, ask).result;
      assert.is(wrong.cached.local, 64);
      assert.not.equal(wrong.tokens, right.tokens, what);
    };
    for (let layer = 0; layer < SMALL.layers; layer++) {
      for (let head = 0; head < SMALL.kvHeads; head++) {
        // A bit of the exponent of one element of the value of a token in block 2.
        const byte = 4 * (at(layer, 2, head) + SMALL.headDim) + 3;
        memories[0][byte] ^= 0x40;
        await changed(`a bit of layer ${layer}, head ${head}`);
        memories[0][byte] ^= 0x40;
      }
    }
    const intact = values.slice();
    const length = at(0, 1, 0) - at(0, 0, 0);
    for (let layer = 0; layer < SMALL.layers; layer++) {
      values.set(intact.subarray(at(layer, 2, 0), at(layer, 2, 0) + length), at(layer, 1, 0));
      values.set(intact.subarray(at(layer, 1, 0), at(layer, 1, 0) + length), at(layer, 2, 0));
    }
    await changed("two blocks in each other's place");
    values.set(intact);
    assert.equal((await engine.generate(prompt, ask).result).tokens, right.tokens);
  });
});

test('where blocks run out requests start again, and say the same', async () => {
  await withEngine({ blocks: 16 }, async (engine) => {
    const many = Array.from({ length: 6 }, (_, i) => text(`request ${i}`, 60));
    const results = await Promise.all(many.map((prompt) => engine.generate(prompt, { ...ask, maxTokens: 40 }).result));
    for (const [i, { tokens }] of results.entries()) assert.equal(tokens, expected([...encode(many[i])], 40));
    const { preemptions, blocks } = engine.stats();
    assert.ok(preemptions > 0);
    assert.equal(blocks, { total: 16, free: 16, cached: blocks.cached, delayed: 0 });
  });
});

test('tokens stream as they come, and leaving the loop aborts the request', async () => {
  await withEngine({}, async (engine) => {
    const streamed: number[] = [];
    const generation = engine.generate('stream', ask);
    for await (const token of generation) streamed.push(token);
    const { tokens, ttftMs, durationMs } = await generation.result;
    assert.equal(streamed, tokens);
    assert.ok(ttftMs > 0 && ttftMs <= durationMs);

    const left = engine.generate('stream', { maxTokens: 500, ignoreEos: true });
    for await (const token of left) {
      assert.is(token, tokens[0]);
      break;
    }
    await rejects(left.result, 'ERR_ABORTED');
    assert.equal((await engine.generate('stream', ask).result).tokens, tokens);
    assert.is(engine.stats().blocks.free, 64);
  });
});

test('a signal aborts: before, while waiting, and while running', async () => {
  await withEngine({ maxRequests: 1 }, async (engine) => {
    assert.throws(
      () => engine.generate('never', { signal: AbortSignal.abort() }),
      (error: MooncakeError) => error.code === 'ERR_ABORTED',
    );
    const [running, waiting] = [new AbortController(), new AbortController()];
    const first = engine.generate('first', { maxTokens: 500, ignoreEos: true, signal: running.signal });
    const second = engine.generate('second', { ...ask, signal: waiting.signal });
    for await (const _ of first) {
      waiting.abort();
      running.abort();
      break;
    }
    await rejects(first.result, 'ERR_ABORTED');
    await rejects(second.result, 'ERR_ABORTED');
    assert.equal((await engine.generate('third', ask).result).tokens, expected([...encode('third')], 12));
    assert.equal(engine.stats().requests, { total: 3, running: 0, waiting: 0, loading: 0, delayed: 0 });
  });
});

test('the end-of-text token ends a request, unless it is ignored', async () => {
  // Found by trying: the text after which this model ends.
  await withEngine({ blocks: 64 }, async (engine) => {
    for (let i = 0; ; i++) {
      assert.ok(i < 200, 'no prompt made the model end');
      const stopped = await engine.generate(`text ${i}`, { maxTokens: 20 }).result;
      assert.ok(stopped.tokens.every((token) => GENERATED.includes(token)));
      if (stopped.finishReason === 'length') continue;
      assert.is(stopped.tokens.at(-1), EOS);
      assert.is(stopped.text.length, stopped.tokens.length - 1);
      const on = await engine.generate(`text ${i}`, { maxTokens: 20, ignoreEos: true }).result;
      assert.is(on.tokens.length, 20);
      assert.equal(on.tokens.slice(0, stopped.tokens.length), stopped.tokens);
      return;
    }
  });
});

test('bad input is refused by name, and the engine goes on', async () => {
  const refusals: [string, () => unknown][] = [
    ['blocks', () => new ReferenceEngine({ blocks: 0 })],
    ['model.heads / model.kvHeads', () => new ReferenceEngine({ model: { heads: 6 } })],
    ['model.headDim / 4', () => new ReferenceEngine({ model: { headDim: 6 } })],
    ['heads', () => new ReferenceEngine({ model, tensorParallelSize: 3 })],
    ['role', () => new ReferenceEngine({ model, role: 'neither' as 'both' })],
    ['algorithm', () => new ReferenceEngine({ model, hash: { algorithm: 'md5' as 'sha256' } })],
  ];
  await withEngine({ blocks: 4 }, async (engine) => {
    const generate = (prompt: unknown, options?: GenerateOptions) => () => engine.generate(prompt as string, options);
    const running = engine.generate('x', { ...ask, requestId: 'taken' });
    refusals.push(
      ['prompt', generate([])],
      ['prompt', generate(undefined)],
      ['prompt[1]', generate([1, 258])],
      ['prompt[0]', generate([1.5])],
      ['prompt.length', generate('x'.repeat(63))],
      ['maxTokens', generate('x', { maxTokens: 63 })],
      ['maxTokens', generate('x', { maxTokens: 0 })],
      ['cacheSalt', generate('x', { cacheSalt: 5 as unknown as string })],
      ['requestId', generate('x', { requestId: 'taken' })],
    );
    for (const [argument, call] of refusals) {
      try {
        call();
      } catch (error) {
        assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT', argument);
        assert.is((error as MooncakeError).argument, argument);
        continue;
      }
      assert.unreachable(argument);
    }
    assert.equal((await running.result).tokens, expected([...encode('x')], 12));
  });
});

test('closing ends what is under way', async () => {
  const engine = new ReferenceEngine({ model });
  const generation = engine.generate('x', { maxTokens: 500, ignoreEos: true });
  const closed = engine.close();
  await rejects(generation.result, 'ERR_CLOSED');
  await closed;
  await engine.close();
  assert.throws(
    () => engine.generate('y'),
    (error: MooncakeError) => error.code === 'ERR_CLOSED',
  );
});

test('any requests, with aborts, in few blocks: every answer is right and every block comes back', async () => {
  const request = fc.record({
    conversation: fc.integer({ min: 0, max: 3 }),
    length: fc.integer({ min: 1, max: 100 }),
    maxTokens: fc.integer({ min: 1, max: 20 }),
    abortAfter: fc.option(fc.integer({ min: 0, max: 10 }), { freq: 3 }),
  });
  const options = fc.record({
    blocks: fc.integer({ min: 16, max: 30 }),
    blockSize: fc.integer({ min: 8, max: 16 }),
    maxBatchedTokens: fc.integer({ min: 1, max: 64 }),
    maxRequests: fc.integer({ min: 1, max: 8 }),
  });
  await fc.assert(
    fc.asyncProperty(options, fc.array(request, { minLength: 1, maxLength: 12 }), async (options, requests) => {
      await withEngine(options, async (engine) => {
        await Promise.all(
          requests.map(async ({ conversation, length, maxTokens, abortAfter }) => {
            const prompt = [...encode(text(`conversation ${conversation}`, length))];
            const generation = engine.generate(prompt, { maxTokens, ignoreEos: true });
            const tokens: number[] = [];
            for await (const token of generation) {
              tokens.push(token);
              if (tokens.length === abortAfter) break;
            }
            assert.equal(tokens, expected(prompt, Math.min(maxTokens, abortAfter || maxTokens)));
          }),
        );
        // An abort takes effect with the next step.
        await engine.generate('last', { maxTokens: 1 }).result;
        const { blocks, requests: left } = engine.stats();
        assert.is(blocks.free, blocks.total);
        assert.equal(left, { total: requests.length + 1, running: 0, waiting: 0, loading: 0, delayed: 0 });
      });
    }),
    { numRuns: 25 },
  );
});

test('a request id is free again as soon as the aborted request has ended, also within a step', async () => {
  const engine = new ReferenceEngine({ model, maxBatchedTokens: 1024 });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const prompt = encode(text('again', 600));
  const first = engine.generate(prompt, { requestId: 'one', maxTokens: 1 });
  for (let i = 0; i < 3; i++) await turn();
  first.abort();
  let second: ReturnType<ReferenceEngine['generate']> | undefined;
  while (second === undefined) {
    await turn();
    try {
      second = engine.generate(prompt, { requestId: 'one', maxTokens: 2, ignoreEos: true });
    } catch (error) {
      assert.match((error as Error).message, /requestId/);
    }
  }
  assert.equal((await second.result).tokens, expected([...prompt], 2));
  await engine.close();
});

test.run();
