/** Weights that change under their name, and blocks that were saved, as an engine announces them. */
import { blockHashes, MooncakeStore, MooncakeStoreConnector, MultiConnector } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from './harness.js';

const TOKENS = tokensOf(5, 41);
const BLOCK = 4;
const BLOCKS = Math.floor(TOKENS.length / BLOCK);

/** Runs the prompt to its first token; how much of it was loaded. */
async function run(engine: HarnessEngine): Promise<number> {
  const request = engine.add({ tokens: TOKENS, maxTokens: 1 });
  await engine.drain();
  assert.equal(engine.corruptions, []);
  return request.externalTokens;
}

for (const integrity of ['strict', 'stock'] as const) {
  test(`a model's blocks are forgotten, another's are not: ${integrity}`, async () => {
    const store = new MooncakeStore({ segments: '16MB' });
    const connector = new MooncakeStoreConnector({ store, integrity, prefix: 'a(b' });
    // Were the name taken for a pattern, the one would be the other.
    const start = (model: string) => new HarnessEngine({ connector, model });
    for (const model of ['m.x', 'm-x']) assert.is(await run(start(model)), 0);
    for (const model of ['m.x', 'm-x']) assert.is(await run(start(model)), BLOCKS * BLOCK);
    assert.is(await connector.forget(start('m.x').info), BLOCKS);
    const again = start('m.x');
    assert.is(await run(again), 0);
    assert.is(await run(start('m-x')), BLOCKS * BLOCK);
    assert.is(await run(start('m.x')), BLOCKS * BLOCK);
    await store.close();
  });
}

for (const [heads, ranks] of [
  [4, 2],
  [1, 1],
]) {
  test(`of two ranks with ${heads} heads each block is reported by ${ranks}`, async () => {
    const store = new MooncakeStore({ segments: '16MB' });
    const connector = new MultiConnector([new MooncakeStoreConnector({ store, reportSaved: true })]);
    const engine = new HarnessEngine({ connector, heads, tensorParallelSize: 2 });
    await run(engine);
    const counts = new Map<string, number>();
    for (const worker of engine.workers) {
      await worker.savesEnded?.();
      for (const saved of worker.takeSaved?.() ?? []) {
        assert.is(saved.group, 0);
        assert.is(saved.ranks, ranks);
        for (let at = 0; at < saved.hashes.length; at += 32) {
          const hash = Buffer.from(saved.hashes.subarray(at, at + 32)).toString('hex');
          counts.set(hash, (counts.get(hash) ?? 0) + 1);
        }
      }
      assert.equal(worker.takeSaved?.(), []);
    }
    const hashes = blockHashes(TOKENS, engine.info.hash);
    const expected = Array.from({ length: BLOCKS }, (_, i) => [hashes.hex(i), ranks] as const);
    assert.equal([...counts].sort(), [...expected].sort());
    await store.close();
  });
}

test.run();
