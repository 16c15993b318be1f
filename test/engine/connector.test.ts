// The engine with a connector: which calls it makes and when, and that its tokens stay right whatever the connector does.
import fc from 'fast-check';
import { MooncakeError } from 'mooncake-ts';
import { type EngineOptions, encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MemoryConnector, type MemoryConnectorOptions } from './support/memory-connector.js';
import { expected, model, SMALL, text } from './support/small.js';

type Use = (engine: ReferenceEngine, connector: MemoryConnector) => Promise<void>;

async function withEngine(memory: MemoryConnectorOptions | MemoryConnector, options: EngineOptions, use: Use) {
  const connector = memory instanceof MemoryConnector ? memory : new MemoryConnector(memory);
  const engine = new ReferenceEngine({ model, blocks: 64, connector, ...options });
  try {
    await use(engine, connector);
  } finally {
    await engine.close();
  }
}

const prompt = [...encode(text('shared by engines', 99))];
const ask = { maxTokens: 12, ignoreEos: true };
const answer = expected(prompt, 12);

/** What an engine without failures saves of the prompt, and of what it says. */
async function savedBy(tensorParallelSize: number): Promise<Map<string, Uint8Array[]>> {
  const saved = new Map<string, Uint8Array[]>();
  await withEngine({ saved }, { tensorParallelSize }, async (engine) => {
    assert.equal((await engine.generate(prompt, ask).result).tokens, answer);
  });
  return saved;
}

function same(saved: Map<string, Uint8Array[]>, reference: Map<string, Uint8Array[]>): void {
  for (const [key, pieces] of reference) assert.equal(saved.get(key), pieces, key);
}

test('what one engine saved another loads, at once or while others run', async () => {
  for (const tensorParallelSize of [1, 2]) {
    const saved = await savedBy(tensorParallelSize);
    // 100 tokens and 11 of the 12 that followed are six full blocks.
    assert.is(saved.size, 6 * tensorParallelSize);
    for (const async of [false, true]) {
      for (const maxBatchedTokens of [3, 256]) {
        await withEngine({ saved, async }, { tensorParallelSize, maxBatchedTokens }, async (engine) => {
          const other = engine.generate('runs meanwhile', { maxTokens: 20, ignoreEos: true });
          const { tokens, cached, kvTransferParams, requestId } = await engine.generate(prompt, ask).result;
          assert.equal(tokens, answer);
          assert.equal(cached, { local: 0, external: 96, none: 4 });
          assert.equal(kvTransferParams, { transfer_id: requestId });
          assert.equal((await other.result).tokens, expected([...encode('runs meanwhile')], 20));
          // Loaded once, it is the engine's own.
          assert.equal((await engine.generate(prompt, ask).result).cached, { local: 96, external: 0, none: 4 });
        });
      }
    }
  }
});

test('a connector that offers the whole prompt is taken at its word, but for the last token', async () => {
  for (const async of [false, true]) {
    const saved = new Map<string, Uint8Array[]>();
    const even = prompt.slice(0, 96);
    await withEngine({ saved }, {}, async (engine) => void (await engine.generate(even, ask).result));
    await withEngine({ saved, async, whole: true }, {}, async (engine, { calls }) => {
      const { tokens, cached, requestId } = await engine.generate(even, ask).result;
      assert.ok(calls.includes(`alloc ${requestId} 96`));
      assert.equal(cached, { local: 0, external: 95, none: 1 });
      assert.equal(tokens, expected(even, 12));
    });
  }
});

test('calls come in the order of the interface', async () => {
  const connector = new MemoryConnector();
  await withEngine(
    connector,
    { blocks: 16, tensorParallelSize: 2, maxBatchedTokens: 40, engineId: 'e' },
    async (engine) => {
      const many = Array.from({ length: 6 }, (_, i) => text(`request ${i}`, 60));
      const generations = many.map((prompt) => engine.generate(prompt, { ...ask, maxTokens: 40 }));
      generations[5].abort();
      await Promise.allSettled(generations.map(({ result }) => result));
      assert.ok(engine.stats().preemptions > 0);
      assert.equal(engine.stats().connector, { kept: 0, workers: 2 });
    },
  );
  const all = connector.calls;
  assert.equal(all.slice(0, 4), ['0: register', '1: register', 'handshake rank 0,rank 1', 'new e-0']);
  assert.equal(all.slice(-3).sort(), ['0: shutdown', '1: shutdown', 'shutdown']);

  const layers = Array.from({ length: SMALL.layers }, (_, layer) => `wait ${layer} save ${layer} `).join('');
  const step = new RegExp(`^bind (preempt )?load (${layers})?waitForSave finished clear $`);
  for (const rank of [0, 1]) {
    const calls = all.filter((call) => call.startsWith(`${rank}: `)).map((call) => call.slice(3));
    const steps = calls
      .slice(1, -1)
      .join(' ')
      .concat(' ')
      .split(/(?=bind)/);
    for (const calls of steps) assert.match(calls, step);
    assert.ok(steps.some((calls) => calls.includes('preempt')));
    assert.is(all.filter((call) => call === 'meta').length, steps.length);
    assert.is(all.filter((call) => call === 'output').length, steps.length);
  }
  // The halves take turns: a step's work is bound after it was decided, and its results are told after it is over.
  const turns = all.filter((call) => /^(meta|output|0: bind|0: clear)$/.test(call)).join(' ');
  assert.match(turns, /^(meta 0: bind 0: clear output ?)+$/);
  for (const id of Array.from({ length: 5 }, (_, i) => `e-${i}`)) {
    const own = all.filter((call) => call.split(' ').includes(id)).map((call) => call.split(' ')[0]);
    assert.match(own.join(' '), /^new (match alloc |match )+end$/, id);
  }
  assert.equal(all.filter((call) => call.endsWith(' e-5')).at(-1), 'end e-5');
});

test('blocks that fail to load are computed, on whichever rank and layer, and nothing wrong is saved', async () => {
  const reference = await savedBy(2);
  for (const async of [false, true]) {
    for (const [rank, layer, place] of [
      [0, 0, 0],
      [1, 1, 3],
      [0, 2, 5],
      [1, 2, 0],
    ]) {
      const saved = new Map(reference);
      const fails: MemoryConnectorOptions['fails'] = (r, l, p) => r === rank && l === layer && p === place;
      await withEngine({ saved, async, fails }, { tensorParallelSize: 2 }, async (engine) => {
        const other = engine.generate('runs meanwhile', { maxTokens: 20, ignoreEos: true });
        const { tokens, cached } = await engine.generate(prompt, ask).result;
        assert.equal(tokens, answer, `${async} ${rank} ${layer} ${place}`);
        assert.equal(cached, { local: 0, external: 16 * place, none: 100 - 16 * place });
        assert.equal((await other.result).tokens, expected([...encode('runs meanwhile')], 20));
        const { failedBlocks, stepsGivenUp } = engine.stats();
        assert.is(failedBlocks, 1);
        assert.is(stepsGivenUp, async ? 0 : 1);
        // Not even found by the next request are the bytes of the load that failed.
        assert.equal((await engine.generate(prompt, ask).result).tokens, answer);
      });
      same(saved, reference);
    }
  }
});

test('a connector that is finding out is asked again, but not for ever', async () => {
  const saved = await savedBy(1);
  await withEngine({ saved, unknown: 5 }, {}, async (engine) => {
    const { tokens, cached } = await engine.generate(prompt, ask).result;
    assert.equal([tokens, cached.external], [answer, 96]);
  });
  await withEngine({ saved, unknown: Number.POSITIVE_INFINITY }, { lookupTimeoutMs: 20 }, async (engine) => {
    const { tokens, cached } = await engine.generate(prompt, ask).result;
    assert.equal([tokens, cached.external], [answer, 0]);
  });
});

test('blocks of an ended request stay as long as the connector sends them, on every rank', async () => {
  await withEngine({ keepSteps: 5 }, { tensorParallelSize: 2 }, async (engine) => {
    await engine.generate(prompt, ask).result;
    const { blocks, requests } = engine.stats();
    // 100 tokens and 11 of the output.
    assert.equal([blocks.delayed, requests.delayed, blocks.free], [7, 1, 57]);
    while (engine.stats().requests.delayed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.is(engine.stats().blocks.free, 64);
    assert.is(engine.stats().connector.kept, 0);
  });
});

test('a request aborted while it loads leaves its blocks to the load', async () => {
  const saved = await savedBy(1);
  await withEngine({ saved, async: true, loadSteps: 30 }, { blocks: 16 }, async (engine) => {
    const loading = engine.generate(prompt, ask);
    while (engine.stats().requests.loading === 0) await new Promise(setImmediate);
    loading.abort();
    // Would they get the blocks of the load, its bytes would overwrite theirs: 7 are taken, 9 are left.
    const others = Array.from({ length: 4 }, (_, i) => text(`other ${i}`, 50));
    const results = await Promise.all(
      others.map((other) => engine.generate(other, { maxTokens: 30, ignoreEos: true }).result),
    );
    for (const [i, { tokens }] of results.entries()) assert.equal(tokens, expected([...encode(others[i])], 30));
    while (engine.stats().requests.delayed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.is(engine.stats().blocks.free, 16);
  });
});

test('a load that starts in a step that is nearly full has blocks for what comes after it', async () => {
  const saved = await savedBy(1);
  const longer = [...prompt, ...encode(text('more', 40), { start: false })];
  await withEngine({ saved, async: true, loadSteps: 0 }, { maxBatchedTokens: 32 }, async (engine) => {
    // 31 tokens, so that one is left for the other request's first step.
    const [first, second] = [engine.generate(text('fills the step', 30), ask), engine.generate(longer, ask)];
    await first.result;
    const { tokens, cached } = await second.result;
    assert.equal([tokens, cached.external], [expected(longer, 12), 96]);
  });
});

test('a load that does not end is given up, and its blocks stay away from others', async () => {
  const saved = await savedBy(1);
  await withEngine({ saved, async: true, loadSteps: 200 }, { loadTimeoutMs: 20 }, async (engine) => {
    const { tokens, cached } = await engine.generate(prompt, ask).result;
    assert.equal([tokens, cached.external], [answer, 0]);
    assert.is(engine.stats().loadTimeouts, 1);
    assert.is(engine.stats().blocks.delayed, 7);
    while (engine.stats().requests.delayed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.is(engine.stats().blocks.free, 64);
    assert.equal((await engine.generate(prompt, ask).result).tokens, answer);
  });
});

test('a connector that breaks its word fails the engine, with the reason', async () => {
  class Broken extends MemoryConnector {
    override createWorker(...parameters: Parameters<MemoryConnector['createWorker']>) {
      const worker = super.createWorker(...parameters);
      worker.waitForSave = () => this.act();
      return worker;
    }
    act(): Promise<void> {
      return new Promise(() => {});
    }
  }
  class Throwing extends Broken {
    override async act(): Promise<void> {
      throw new RangeError('out of everything');
    }
  }
  for (const [connector, code] of [
    [new Broken(), 'ERR_TIMEOUT'],
    [new Throwing(), 'ERR_WORKER'],
  ] as const) {
    await withEngine(connector, { stepTimeoutMs: 20 }, async (engine) => {
      const error: unknown = await engine.generate('x', ask).result.catch((reason) => reason);
      assert.instance(error, MooncakeError);
      assert.is((error as MooncakeError).code, code);
      assert.throws(
        () => engine.generate('y'),
        (thrown: unknown) => thrown === error,
      );
    });
    assert.ok(connector.calls.includes('shutdown'));
  }
});

test('any requests, any connector: every answer is right and every block comes back', async () => {
  const request = fc.record({
    engine: fc.integer({ min: 0, max: 1 }),
    conversation: fc.integer({ min: 0, max: 3 }),
    length: fc.integer({ min: 1, max: 100 }),
    maxTokens: fc.integer({ min: 1, max: 20 }),
    abortAfter: fc.option(fc.integer({ min: 0, max: 10 }), { freq: 3 }),
  });
  const memory = fc.record({
    async: fc.boolean(),
    whole: fc.boolean(),
    unknown: fc.integer({ min: 0, max: 3 }),
    keepSteps: fc.integer({ min: 0, max: 5 }),
    loadSteps: fc.integer({ min: 0, max: 20 }),
    failing: fc.integer({ min: 0, max: 5 }),
  });
  const options = fc.record({
    blocks: fc.integer({ min: 8, max: 30 }),
    maxBatchedTokens: fc.integer({ min: 1, max: 64 }),
    maxRequests: fc.integer({ min: 1, max: 8 }),
    tensorParallelSize: fc.constantFrom(1, 2),
  });
  await fc.assert(
    fc.asyncProperty(
      options,
      memory,
      fc.array(request, { minLength: 1, maxLength: 12 }),
      async (options, memory, requests) => {
        const saved = new Map<string, Uint8Array[]>();
        let loads = 0;
        const fails = () => memory.failing > 0 && loads++ % (7 * memory.failing) === 6;
        const connectors = [0, 1].map(() => new MemoryConnector({ ...memory, saved, fails }));
        const engines = connectors.map((connector) => new ReferenceEngine({ model, connector, ...options }));
        await Promise.all(
          requests.map(async ({ engine, conversation, length, maxTokens, abortAfter }) => {
            const prompt = [...encode(text(`conversation ${conversation}`, length))];
            const generation = engines[engine].generate(prompt, { maxTokens, ignoreEos: true });
            const tokens: number[] = [];
            for await (const token of generation) {
              tokens.push(token);
              if (tokens.length === abortAfter) break;
            }
            assert.equal(tokens, expected(prompt, Math.min(maxTokens, abortAfter || maxTokens)));
          }),
        );
        for (const engine of engines) {
          await engine.generate('last', { maxTokens: 1 }).result;
          while (engine.stats().requests.delayed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
          const { blocks, requests } = engine.stats();
          assert.is(blocks.free, blocks.total);
          assert.equal({ ...requests, total: 0 }, { total: 0, running: 0, waiting: 0, loading: 0, delayed: 0 });
          await engine.close();
        }
      },
    ),
    { numRuns: 25 },
  );
});

test.run();
