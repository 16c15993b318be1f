import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AGENTIC_DEFAULTS, type AgenticOptions, agentic, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

type Shape = Pick<AgenticOptions, 'system' | 'first' | 'input' | 'output' | 'turns' | 'block'>;

/** Prompt tokens of a session's turns. */
function prompts({ system, first, input, output, turns }: Shape): number[] {
  return Array.from({ length: turns }, (_, turn) => system + first + turn * (input + output));
}

const SMALL = { system: 1000, first: 700, input: 300, output: 130, turns: 6, block: 16, tokenBytes: 1e6, sessions: 5 };
const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);

test('a pool with room for all hits every full block that was said before', async () => {
  for (const saveOutput of [true, false]) {
    const result = await agentic({ gpus: 24, ...SMALL, saveOutput });
    const { block, output } = SMALL;
    const said = prompts(SMALL);
    const common = Math.floor(SMALL.system / block);
    const later = sum(said.slice(0, -1).map((prompt) => Math.floor((prompt + (saveOutput ? output - 1 : 0)) / block)));
    // The very first request of all finds nothing, the first of each other session the common blocks.
    assert.is(result.hitTokens, block * (10 * later + 9 * common));
    assert.is(result.promptTokens, 10 * sum(said));
    assert.is(result.requests, 60);
    assert.is(result.prefillInstances, 2);
    assert.is(result.poolEvictions, 0);
    const last = said[said.length - 1] + (saveOutput ? output - 1 : 0);
    assert.is(result.poolObjects, common + 10 * (Math.floor(last / block) - common));
    assert.is(result.poolBytes, result.poolObjects * block * SMALL.tokenBytes);
  }
});

test('GPU memory for one context keeps the common blocks alone when sessions take turns', async () => {
  // Answers take so much longer than the pauses that every session has one turn before any has the next.
  const options = { ...SMALL, sessions: 12, tokenTime: 60_000, hbm: 4 };
  const result = await agentic({ gpus: 12, ...options });
  const common = Math.floor(SMALL.system / SMALL.block);
  assert.is(result.localHitTokens, SMALL.block * common * (result.requests - 1));
  assert.ok(result.localEvictions > 0);
});

test('GPU memory for everything needs no pool', async () => {
  const result = await agentic({ gpus: 12, ...SMALL, saveOutput: false });
  assert.is(result.localEvictions, 0);
  assert.is(result.localHitTokens, result.hitTokens);
});

test('segments that are too small evict, stay within bounds and hit less', async () => {
  const roomy = await agentic({ gpus: 24, ...SMALL, hbm: 4 });
  for (const policy of ['lru', 'fifo', 's3fifo', 'lfu'] as const) {
    const tight = await agentic({ gpus: 24, ...SMALL, hbm: 4, segment: 0.5, policy });
    assert.ok(tight.poolEvictions > 0, policy);
    assert.ok(tight.hitTokens < roomy.hitTokens, policy);
    assert.is(tight.localHitTokens, roomy.localHitTokens, policy);
    assert.ok(tight.poolBytes <= tight.poolCapacity, policy);
    assert.is(tight.poolBytes, tight.poolObjects * SMALL.block * SMALL.tokenBytes);
    // 31 objects of 16 MB fit into each 500 MB.
    assert.is(tight.poolObjects, 24 * 31, policy);
  }
});

test('caches that are too small give the figures of the Python implementation', async () => {
  const vectors = join(dirname(fileURLToPath(import.meta.url)), '../vectors/agentic/expected.json');
  for (const { options, figures } of JSON.parse(readFileSync(vectors, 'utf8'))) {
    const result = await agentic(options);
    const { hitTokens, localHitTokens, localEvictions, poolEvictions, poolObjects } = result;
    assert.equal({ hitTokens, localHitTokens, localEvictions, poolEvictions, poolObjects }, figures);
    assert.ok(poolEvictions > 0 && localEvictions > 0);
  }
});

test('the published workload hits more than 95 % of its prompt tokens with the pool', async () => {
  const shared = await agentic({ gpus: 12 });
  assert.is(shared.sessions, 75);
  assert.is(shared.requests, 75 * 30);
  assert.is(shared.promptTokens, 75 * sum(prompts(AGENTIC_DEFAULTS)));
  assert.ok(shared.hitRate > 0.95, String(shared.hitRate));
  assert.ok(shared.localHitRate < 0.5, String(shared.localHitRate));
});

test('the seed decides', async () => {
  const figures = async (seed: number) => {
    const { seconds, ...rest } = await agentic({ gpus: 24, ...SMALL, hbm: 4, seed });
    assert.ok(seconds >= 0);
    return rest;
  };
  assert.equal(await figures(1), await figures(1));
  assert.not.equal(await figures(1), await figures(2));
});

test('options out of range are refused by name and value', async () => {
  const wrong: [name: keyof AgenticOptions, value: unknown][] = [
    ['gpus', 10],
    ['gpus', 13],
    ['gpus', '12'],
    ['sessions', 0],
    ['turns', 1.5],
    ['input', -1],
    ['block', 0],
    ['tokenBytes', Number.NaN],
    ['hbm', 0],
    ['hbm', 0.001],
    ['segment', -1],
    ['segment', 0.001],
    ['policy', 'opt'],
    ['saveOutput', 'no'],
    ['seed', 2 ** 32],
    ['sessions', 10_000_000],
  ];
  for (const [name, value] of wrong) {
    try {
      await agentic({ gpus: 12, ...SMALL, [name]: value });
      assert.unreachable(`${name} ${value}`);
    } catch (error) {
      assert.instance(error, MooncakeError, `${name} ${value}: ${error}`);
      assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT');
      assert.is((error as MooncakeError).argument, name);
      assert.equal((error as MooncakeError).value, value);
    }
  }
});

test.run();
