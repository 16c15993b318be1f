// Matching through the pool: the index's own answers, also while this thread writes it.
import type { Worker } from 'node:worker_threads';
import { BlockHashes, blockHashes, PrefixIndex, type PrefixMatch, WorkerPool } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, tokensOf } from './support.js';

const XX = { blockSize: 16, algorithm: 'xxhash_cbor', seed: '0' } as const;

function samePrefix(actual: PrefixMatch, expected: PrefixMatch): void {
  assert.is(actual.matched, expected.matched);
  assert.is(actual.approximate, expected.approximate);
  assert.equal(actual.entries(), expected.entries());
}

/** Instances hold prefixes of various length of 60 prompts, on all tiers. */
function filled(keyWidth: 8 | 16 | 32) {
  const index = new PrefixIndex({ shared: true, keyWidth });
  const options = keyWidth === 32 ? OPTIONS : XX;
  const prompts = Array.from({ length: 60 }, (_, i) => tokensOf(i, 16 * (1 + ((i * 13) % 90))));
  for (const [i, prompt] of prompts.entries()) {
    const hashes = blockHashes(prompt, options);
    for (let holder = 0; holder < 1 + (i % 4); holder++) {
      const instance = index.addInstance(`worker-${(i + 3 * holder) % 11}`);
      const tier = (['gpu', 'cpu', 'disk'] as const)[(i + holder) % 3];
      index.insert(instance, hashes.slice(0, Math.ceil(hashes.length / (1 + holder))), {
        tier,
        group: i % 5 === 0 ? 3 : 0,
      });
    }
  }
  return { index, prompts: [...prompts, tokensOf(1000, 320), tokensOf(7, 5)], options };
}

for (const inline of ['always', 'never', 'auto'] as const) {
  for (const keyWidth of [8, 16, 32] as const) {
    const test = suite(`match, inline: ${inline}, keys of ${keyWidth} bytes`);
    const { index, prompts, options } = filled(keyWidth);
    let pool: WorkerPool;
    test.before(() => {
      pool = new WorkerPool({ threads: 2, inline, index });
    });
    test.after(() => pool.close());

    test('one chain and many, in both groups', async () => {
      const chains = prompts.map((prompt) => blockHashes(prompt, options));
      for (const group of [0, 3]) {
        const expected = chains.map((chain) => index.match(chain, { group }));
        assert.ok(expected.some(({ matched }) => matched > 0));
        const many = await pool.matchBatch(chains, { group });
        for (const [i, match] of many.entries()) samePrefix(match, expected[i]);
        samePrefix(await pool.match(chains[7], { group }), expected[7]);
      }
      assert.equal(await pool.matchBatch([]), []);
    });

    test('keys as they lie', async () => {
      if (keyWidth === 8) {
        const chain = blockHashes(prompts[8], options).events();
        samePrefix(await pool.match(chain), index.match(chain));
      } else {
        const { bytes } = blockHashes(prompts[8], options);
        samePrefix(await pool.match(bytes), index.match(bytes));
        samePrefix(await pool.match(Buffer.from(bytes)), index.match(bytes));
      }
    });

    test('from tokens to matches in one go', async () => {
      const expected = prompts.map((prompt) => index.match(blockHashes(prompt, options)));
      const many = await pool.hashAndMatchBatch(prompts, options);
      for (const [i, { match, hashes }] of many.entries()) {
        samePrefix(match, expected[i]);
        assert.is(hashes, undefined);
      }
      const group = { group: 3, hashes: true };
      const { match, hashes } = await pool.hashAndMatch(prompts[5], { ...options, ...group });
      samePrefix(match, index.match(blockHashes(prompts[5], options), { group: 3 }));
      assert.is(Buffer.compare(hashes?.bytes as Uint8Array, blockHashes(prompts[5], options).bytes), 0);
      const both = await pool.hashAndMatchBatch(prompts, { ...options, hashes: true });
      for (const [i, one] of both.entries()) {
        samePrefix(one.match, expected[i]);
        assert.is(Buffer.compare(one.hashes?.bytes as Uint8Array, blockHashes(prompts[i], options).bytes), 0);
      }
    });

    test('bad arguments are refused by name', async () => {
      const named = async (promise: Promise<unknown>) => {
        const { code, argument } = await rejection(promise);
        return [code, argument];
      };
      const any = (value: unknown) => value as never;
      const odd = new Uint8Array(13);
      assert.equal(await named(pool.match(any('x'))), ['ERR_INVALID_ARGUMENT', 'hashes']);
      assert.equal(await named(pool.match(odd)), ['ERR_INVALID_ARGUMENT', 'hashes']);
      assert.equal(await named(pool.match(new Uint8Array(32), { group: 16 })), ['ERR_INVALID_ARGUMENT', 'group']);
      assert.equal(await named(pool.matchBatch(any(3))), ['ERR_INVALID_ARGUMENT', 'chains']);
      assert.equal(await named(pool.matchBatch([new Uint8Array(32), odd])), ['ERR_INVALID_ARGUMENT', 'chains[1]']);
      assert.equal(await named(pool.matchBatch(new Array(2))), ['ERR_INVALID_ARGUMENT', 'chains[0]']);
      assert.equal(await named(pool.hashAndMatch([1], { ...options, hashes: any(1) })), [
        'ERR_INVALID_ARGUMENT',
        'hashes',
      ]);
      assert.equal(await named(pool.hashAndMatch(Int32Array.of(-1), { ...options, blockSize: 1 })), [
        'ERR_INVALID_ARGUMENT',
        'tokens[0]',
      ]);
      const wide = new BlockHashes(new Uint8Array(64), keyWidth === 32 ? 16 : 32);
      if (keyWidth === 8) assert.ok((await pool.match(wide)).approximate);
      else assert.equal(await named(pool.match(wide)), ['ERR_INVALID_ARGUMENT', 'hashes']);
    });

    test.run();
  }
}

const live = suite('a live index');

live('answers of readers are states that the writer went through, in order', async () => {
  const index = new PrefixIndex({ shared: true, keyWidth: 16 });
  const pool = new WorkerPool({ threads: 2, inline: 'never', index });
  const prompt = tokensOf(1, 16 * 4000);
  const hashes = blockHashes(prompt, XX);
  const growing = index.addInstance('growing');
  const steady = index.addInstance('steady');
  index.insert(steady, hashes.slice(0, 100));
  let inserted = 0;
  let running = true;
  let noise = 0;
  // The chain grows block by block among insertions that make the index's tables grow; a query must see a length
  // between that at its call and that at its answer, and never one shorter than an answer before it.
  const writer = (async () => {
    while (inserted < hashes.length) {
      const parent = inserted > 0 ? hashes.at(inserted - 1) : undefined;
      const next = Math.min(hashes.length, inserted + 1 + (inserted % 7));
      index.insert(growing, hashes.slice(inserted, next), { parent });
      inserted = next;
      for (let i = 0; i < 4; i++) index.insert(steady, blockHashes(tokensOf(10_000 + noise++, 320), XX));
      if (inserted % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    running = false;
  })();
  let answers = 0;
  const reader = async (both: boolean) => {
    let seen = 0;
    while (running) {
      const before = inserted;
      const match = both ? (await pool.hashAndMatch(prompt, XX)).match : await pool.match(hashes);
      const after = inserted;
      const length = match.length(growing);
      assert.ok(length >= before && length <= after, `${length} of ${before} to ${after}`);
      assert.ok(length >= seen);
      assert.is(match.length(steady), 100);
      assert.is(match.matched, Math.max(length, 100));
      seen = length;
      answers++;
    }
  };
  await Promise.all([writer, reader(true), reader(false), reader(false)]);
  assert.ok(answers > 10);
  assert.is((await pool.match(hashes)).length(growing), hashes.length);
  await pool.close();
});

live('a writer held up in the middle of a change is waited for, but not for ever', async () => {
  const { index, prompts, options } = filled(32);
  const pool = new WorkerPool({ threads: 1, inline: 'never', index });
  const hashes = blockHashes(prompts[9], options);
  const expected = index.match(hashes);
  await pool.match(hashes);
  // The writer's version, odd while it changes something (assembly/prefix/header.ts).
  const version = new Int32Array(index.reader().memory.buffer, 0x10000, 1);
  Atomics.add(version, 0, 1);
  setTimeout(() => Atomics.add(version, 0, 1), 50);
  samePrefix(await pool.match(hashes), expected);
  Atomics.add(version, 0, 1);
  assert.is((await rejection(pool.match(hashes))).code, 'ERR_BUSY');
  Atomics.add(version, 0, 1);
  samePrefix(await pool.match(hashes), expected);
  await pool.close();
});

live('instances added, removed and cleared later are seen', async () => {
  const index = new PrefixIndex({ shared: true, keyWidth: 16 });
  const pool = new WorkerPool({ threads: 1, inline: 'never', index });
  const hashes = blockHashes(tokensOf(2, 320), XX);
  assert.equal((await pool.match(hashes)).entries(), []);
  for (let i = 0; i < 40; i++) index.insert(index.addInstance(`late-${i}`), hashes.slice(0, 1 + (i % 20)));
  samePrefix(await pool.match(hashes), index.match(hashes));
  assert.is((await pool.match(hashes)).length('late-19'), 20);
  index.clear('late-19');
  index.removeInstance('late-39');
  samePrefix(await pool.match(hashes), index.match(hashes));
  assert.is((await pool.match(hashes)).matched, 19);
  await pool.close();
});

live('blocks of an instance removed while a call runs are not given to the one that takes its number', async () => {
  const index = new PrefixIndex({ shared: true, keyWidth: 16 });
  const hashes = blockHashes(LONG, XX);
  index.insert(index.addInstance('old'), hashes.slice(0, 100));
  const pool = new WorkerPool({ threads: 1, inline: 'never', index });
  await pool.match(hashes.slice(0, 1));
  // Both are matched before the number changes hands, and their answers read after it.
  const calls = [
    pool.match(hashes.slice(0, 100)),
    pool.hashAndMatch(LONG.subarray(0, 1600), XX).then(({ match }) => match),
  ];
  // The messages leave in microtasks.
  for (let i = 0; i < 10; i++) await undefined;
  const until = performance.now() + 100;
  while (performance.now() < until) {
    // The worker answers meanwhile.
  }
  index.removeInstance('old');
  assert.is(index.addInstance('new'), 0);
  for (const match of await Promise.all(calls)) assert.equal(match.entries(), []);
  await pool.close();
});

live('a pool without an index, or with one that cannot be shared, says so', async () => {
  const pool = new WorkerPool({ threads: 1 });
  assert.is((await rejection(pool.match(new Uint8Array(32)))).code, 'ERR_NOT_SUPPORTED');
  assert.is((await rejection(pool.hashAndMatch([1], OPTIONS))).code, 'ERR_NOT_SUPPORTED');
  await pool.close();
  for (const index of [new PrefixIndex(), {}, 1]) {
    assert.throws(
      () => new WorkerPool({ index: index as PrefixIndex }),
      (error: { code: string; argument: string }) =>
        error.code === 'ERR_INVALID_ARGUMENT' && error.argument === 'index',
    );
  }
});

live('a worker that dies while it matches leaves the index usable', async () => {
  const { index, prompts, options } = filled(32);
  const workers: Worker[] = [];
  const note = (worker: Worker) => workers.push(worker);
  process.on('worker', note);
  const pool = new WorkerPool({ threads: 1, inline: 'never', index });
  await pool.hashAndMatch(prompts[0], options);
  process.off('worker', note);
  const lost = rejection(pool.hashAndMatch(LONG, options));
  await workers[0].terminate();
  assert.is((await lost).code, 'ERR_WORKER');
  index.insert('worker-1', blockHashes(tokensOf(5000, 320), options));
  for (const prompt of prompts) {
    samePrefix((await pool.hashAndMatch(prompt, options)).match, index.match(blockHashes(prompt, options)));
  }
  await pool.close();
});

live('pools come and go over one index, which does not grow by it', async () => {
  const { index, prompts, options } = filled(32);
  let bytes = 0;
  for (let i = 0; i < 20; i++) {
    const pool = new WorkerPool({ threads: 2, inline: 'never', index });
    samePrefix((await pool.hashAndMatch(prompts[3], options)).match, index.match(blockHashes(prompts[3], options)));
    await pool.close();
    bytes ||= index.stats().bytesUsed;
  }
  assert.is(index.stats().bytesUsed, bytes);
});

live.run();
