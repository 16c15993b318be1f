import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { MooncakeError, type PolicyName, policyNames, readTrace, replay } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chainedRequests, naiveLru, optimum, toTrace } from './support/naive.js';

const vectors = join(dirname(fileURLToPath(import.meta.url)), '../vectors/replay');

interface Expected {
  policy: PolicyName;
  blocks: number | null;
  hitBlocks: number;
  evictions: number;
}

test('every policy and capacity gives the figures of the Python implementation', async () => {
  const trace = await readTrace(join(vectors, 'trace.jsonl'));
  const expected = JSON.parse(readFileSync(join(vectors, 'expected.json'), 'utf8')) as Expected[];
  assert.equal([...new Set(expected.map(({ policy }) => policy))].sort(), [...policyNames].sort());
  for (const { policy, blocks, hitBlocks, evictions } of expected) {
    const result = await replay(trace, { policy, blocks: blocks ?? Infinity });
    assert.is(result.hitBlocks, hitBlocks, `hits of ${policy} with ${blocks} blocks`);
    assert.is(result.evictions, evictions, `evictions of ${policy} with ${blocks} blocks`);
    assert.is(result.hitRate, hitBlocks / trace.blocks.length);
  }
});

test('random traces give what a list and a Set give', async () => {
  await fc.assert(
    fc.asyncProperty(chainedRequests(60, 8), fc.integer({ min: 1, max: 40 }), async (requests, blocks) => {
      const result = await replay(toTrace(requests), { policy: 'lru', blocks });
      const naive = naiveLru(requests, blocks);
      assert.equal([result.hitBlocks, result.evictions], [naive.hitBlocks, naive.evictions]);
    }),
    { numRuns: 300 },
  );
});

test('opt is the optimum that an exhaustive search finds, and no policy is better', async () => {
  await fc.assert(
    fc.asyncProperty(chainedRequests(7, 4), fc.integer({ min: 1, max: 4 }), async (requests, blocks) => {
      const trace = toTrace(requests);
      const { hitBlocks } = await replay(trace, { policy: 'opt', blocks });
      assert.is(hitBlocks, optimum(requests, blocks));
      for (const policy of policyNames) {
        assert.ok((await replay(trace, { policy, blocks })).hitBlocks <= hitBlocks, policy);
      }
    }),
    { numRuns: 200 },
  );
});

test('without a limit nothing is evicted and every block that came before is a hit', async () => {
  const requests = [[1, 2, 3], [1, 2, 4], [5], [1, 2, 3, 6]];
  for (const policy of policyNames) {
    const result = await replay(toTrace(requests), { policy, blocks: Infinity });
    assert.is(result.hitBlocks, 5);
    assert.is(result.evictions, 0);
    assert.is(result.totalBlocks, 11);
    assert.is(result.uniqueBlocks, 6);
    assert.is(result.requests, 4);
  }
});

test('a hit is the leading run alone: a block behind a gap does not count', async () => {
  // Two blocks fit: 3 takes the place of 1 and 2 stays, but without 1 it is of no use.
  const result = await replay(toTrace([[1, 2], [3], [1, 2]]), { policy: 'lru', blocks: 2 });
  assert.is(result.hitBlocks, 0);
});

test('a prompt longer than the cache', async () => {
  for (const policy of policyNames) {
    const result = await replay(toTrace([[1, 2, 3, 4], [1, 2, 3, 4], [5]]), { policy, blocks: 2 });
    assert.is(result.hitBlocks, policy === 'opt' ? 2 : 0, policy);
  }
});

test('a replay can be stopped', async () => {
  const trace = toTrace([[1], [2]]);
  const signal = AbortSignal.abort();
  await rejects(replay(trace, { policy: 'lru', blocks: 1, signal }), 'ERR_ABORTED');
});

test('wrong policies and capacities are refused by name and value', async () => {
  const trace = toTrace([[1]]);
  const wrong = { policy: 'arc' as PolicyName, blocks: 1 };
  assert.is((await rejects(replay(trace, wrong), 'ERR_INVALID_ARGUMENT')).argument, 'policy');
  for (const options of [undefined, null, 5]) {
    assert.is((await rejects(replay(trace, options as never), 'ERR_INVALID_ARGUMENT')).argument, 'options');
  }
  for (const other of [undefined, null, {}, 'trace.jsonl']) {
    const call = replay(other as never, { policy: 'lru', blocks: 1 });
    assert.is((await rejects(call, 'ERR_INVALID_ARGUMENT')).argument, 'trace');
  }
  for (const blocks of [0, -1, 1.5, Number.NaN, '7' as unknown as number]) {
    const error = await rejects(replay(trace, { policy: 'lru', blocks }), 'ERR_INVALID_ARGUMENT');
    assert.is(error.argument, 'blocks');
    assert.equal(error.value, blocks);
  }
});

async function rejects(promise: Promise<unknown>, code: string): Promise<MooncakeError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, code);
    return error as MooncakeError;
  }
  throw new Error('nothing was thrown');
}

test.run();
