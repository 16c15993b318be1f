// The policy `store` of replay and the store's own metadata service, run over the same traces, must agree exactly.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { generateTrace, MooncakeError, readTrace, replay, replayStore, type Trace } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chainedRequests, toTrace } from './support/naive.js';

const vectors = join(dirname(fileURLToPath(import.meta.url)), '../vectors/replay');

async function same(trace: Trace, blocks: number, evictionHighWatermark?: number, evictionRatio?: number) {
  const options = { blocks, evictionHighWatermark, evictionRatio };
  const { hitBlocks, evictions } = await replay(trace, { policy: 'store', ...options });
  const real = replayStore(trace, options);
  assert.equal(
    { hitBlocks: real.hitBlocks, evictions: real.evictions },
    { hitBlocks, evictions },
    JSON.stringify(options),
  );
  return evictions;
}

test('hits and evictions of a trace, over capacities, watermarks and batches', async () => {
  const trace = await readTrace(join(vectors, 'trace.jsonl'));
  let evictions = 0;
  for (const blocks of [1, 2, 3, 7, 20, 50, 120, 300, 1000]) {
    evictions += await same(trace, blocks);
    for (const watermark of [0.3, 0.57, 1]) {
      for (const ratio of [0.001, 0.3, 1]) evictions += await same(trace, blocks, watermark, ratio);
    }
  }
  assert.ok(evictions > 1000);
});

test('of a generated workload', async () => {
  const trace = generateTrace({ sessions: 60, seed: 3 });
  for (const blocks of [50, 500, 3000]) await same(trace, blocks);
  const larger = generateTrace({ sessions: 200, seed: 3 });
  assert.is((await same(larger, 5000, 1, 1)) % 1024, 0, 'a run gives up 1,024 at most');
});

test('of random traces', async () => {
  const share = fc.double({ min: 0.01, max: 1, noNaN: true });
  await fc.assert(
    fc.asyncProperty(
      chainedRequests(40, 8),
      fc.integer({ min: 1, max: 40 }),
      share,
      share,
      async (requests, blocks, watermark, ratio) => {
        await same(toTrace(requests), blocks, watermark, ratio);
      },
    ),
    { numRuns: 50 },
  );
});

test('shares that are none are refused by name', async () => {
  const trace = toTrace([[1]]);
  for (const name of ['evictionHighWatermark', 'evictionRatio']) {
    for (const value of [0, -1, 1.01, Number.NaN, '0.9']) {
      const error = await replay(trace, { policy: 'store', blocks: 1, [name]: value as number }).then(
        () => undefined,
        (reason) => reason,
      );
      assert.instance(error, MooncakeError);
      assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', name]);
    }
  }
});

test.run();
