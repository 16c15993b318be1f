import { blockHashes, PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { bundle } from './support/bundle.js';
import { CHROMIUM, open } from './support/chromium.js';

const options = { algorithm: 'sha256_cbor', blockSize: 16, seed: '0' } as const;

const PAGE = `
import { PrefixIndex, useSharedCore } from 'mooncake-ts/edge';
import { connect } from 'mooncake-ts/workers';
globalThis.pool = async ({ snapshot, prompts, options }) => {
  let index;
  if (crossOriginIsolated) {
    useSharedCore(await WebAssembly.compileStreaming(fetch('/node_modules/mooncake-ts/dist/core.shared.wasm')));
    index = PrefixIndex.load(Uint8Array.from(snapshot), { shared: true });
  }
  // Every call goes to a worker.
  const pool = connect(() => new Worker('/worker.js', { type: 'module' }), { threads: 2, index, inline: 'never' });
  const hashes = await Promise.all(prompts.map((tokens) => pool.hash(tokens, options)));
  const matches = index && (await Promise.all(hashes.map((run) => pool.match(run))));
  const refused = await pool.hash([-1], { ...options, blockSize: 1 }).catch(({ code, argument }) => [code, argument]);
  await pool.close();
  return {
    isolated: crossOriginIsolated,
    hashes: hashes.map((run) => run.toHex()),
    best: matches?.map((match) => match.best()?.name ?? null),
    refused,
  };
};`;

const WORKER = "import { expose } from 'mooncake-ts/workers'; expose();";

interface Pooled {
  isolated: boolean;
  hashes: string[][];
  best?: (string | null)[];
  refused: unknown;
}

const prompt = (stem: number) => Array.from({ length: 1600 }, (_, i) => (stem * 65_537 + i * 7_919) % 128_000);

if (CHROMIUM.path) {
  for (const isolated of [true, false]) {
    test(`a pool of a page's workers answers ${isolated ? 'through shared memory' : 'where there is none'}`, async () => {
      const prompts = [1, 2, 3].map(prompt);
      const hashes = prompts.map((tokens) => blockHashes(tokens, options));
      const index = new PrefixIndex({ keyWidth: 32 });
      for (const id of [0, 1]) index.insert(index.addInstance(`gpu-${id}`), hashes[id]);
      const [page] = await bundle({ source: PAGE }, 'browser');
      const [worker] = await bundle({ source: WORKER }, 'browser');
      const site = await open(
        [
          {
            name: 'index.html',
            contents: Buffer.from('<!doctype html><script type="module" src="/page.js"></script>'),
          },
          { name: 'page.js', contents: page.contents },
          { name: 'worker.js', contents: worker.contents },
        ],
        { isolated },
      );
      try {
        const answer = await site.page.evaluate(
          (given) => (globalThis as unknown as { pool(given: unknown): Promise<Pooled> }).pool(given),
          { snapshot: [...index.snapshot()], prompts, options },
        );
        assert.is(answer.isolated, isolated);
        assert.equal(
          answer.hashes,
          hashes.map((run) => run.toHex()),
        );
        if (isolated) assert.equal(answer.best, ['gpu-0', 'gpu-1', null]);
        assert.equal(answer.refused, ['ERR_INVALID_ARGUMENT', 'tokens[0]']);
      } finally {
        await site.close();
      }
    });
  }
} else {
  skip(test, "the pool of a page's workers", CHROMIUM.reason, CHROMIUM.enable);
}

test.run();
