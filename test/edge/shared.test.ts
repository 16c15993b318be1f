import { blockHashes, PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { bundle } from './support/bundle.js';
import { CHROMIUM, open } from './support/chromium.js';

const options = { algorithm: 'xxhash_cbor', blockSize: 16, seed: '0' } as const;
const WORKERS = 2;
const BLOCKS = 500;

/** A page loads a snapshot into shared memory, then adds one prompt block by block while its workers look for it. */
const PAGE = `
import { blockHashes, PrefixIndex, useSharedCore } from 'mooncake-ts/edge';
globalThis.watch = async ({ snapshot, known, growing, options, workers }) => {
  const core = await WebAssembly.compileStreaming(fetch('/node_modules/mooncake-ts/dist/core.shared.wasm'));
  useSharedCore(core);
  const index = PrefixIndex.load(Uint8Array.from(snapshot), { shared: true });
  const reports = [];
  const ready = Array.from({ length: workers }, () => new Promise((resolve, reject) => {
    const worker = new Worker('/worker.js', { type: 'module' });
    reports.push(new Promise((done) => {
      worker.onmessage = ({ data }) => (data === 'ready' ? resolve() : done(data));
    }));
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage({ core, handle: index.reader(), known, growing, options });
  }));
  await Promise.all(ready);
  const hashes = blockHashes(growing, options);
  for (let i = 0; i < hashes.length; i++) {
    index.insert('gpu-1', hashes.slice(i, i + 1), i > 0 ? { parent: hashes.at(i - 1) } : {});
    if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  return { isolated: crossOriginIsolated, reports: await Promise.all(reports) };
};`;

const WORKER = `
import { blockHashes, MooncakeError, PrefixReader, useSharedCore } from 'mooncake-ts/edge';
onmessage = ({ data: { core, handle, known, growing, options } }) => {
  useSharedCore(core);
  const reader = PrefixReader.attach(handle);
  const length = (hashes, instance) => {
    for (;;) {
      try {
        return reader.match(hashes).length(instance);
      } catch (error) {
        if (!(error instanceof MooncakeError && error.code === 'ERR_BUSY')) throw error;
      }
    }
  };
  const report = { known: length(blockHashes(known, options), 'gpu-0'), steps: 0, backwards: 0, last: 0 };
  const hashes = blockHashes(growing, options);
  postMessage('ready');
  for (let before = 0, round = 0; before < hashes.length && round < 2e7; before = report.last, round++) {
    report.last = length(hashes, 'gpu-1');
    if (report.last > before) report.steps++;
    if (report.last < before) report.backwards++;
  }
  postMessage(report);
};`;

const prompt = (stem: number) => Array.from({ length: 16 * BLOCKS }, (_, i) => (stem * 65_537 + i * 7_919) % 128_000);

interface Watched {
  isolated: boolean;
  reports: { known: number; steps: number; backwards: number; last: number }[];
}

if (CHROMIUM.path) {
  test('workers of a cross-origin-isolated page read one index in shared memory while the page writes it', async () => {
    const index = new PrefixIndex({ keyWidth: 16 });
    for (const name of ['gpu-0', 'gpu-1']) index.addInstance(name);
    index.insert('gpu-0', blockHashes(prompt(1), options));
    const input = {
      snapshot: [...index.snapshot()],
      known: prompt(1),
      growing: prompt(2),
      options,
      workers: WORKERS,
    };
    const [page] = await bundle({ source: PAGE }, 'browser');
    const [worker] = await bundle({ source: WORKER }, 'browser');
    const site = await open([
      { name: 'index.html', contents: Buffer.from('<!doctype html><script type="module" src="/page.js"></script>') },
      { name: 'page.js', contents: page.contents },
      { name: 'worker.js', contents: worker.contents },
    ]);
    try {
      const { isolated, reports } = await site.page.evaluate(
        (given) => (globalThis as unknown as { watch(given: unknown): Promise<Watched> }).watch(given),
        input,
      );
      assert.is(isolated, true);
      assert.is(reports.length, WORKERS);
      for (const { known, steps, backwards, last } of reports) {
        assert.equal({ known, backwards, last }, { known: BLOCKS, backwards: 0, last: BLOCKS });
        assert.ok(steps > 1, 'the prompt was seen growing');
      }
    } finally {
      await site.close();
    }
  });
} else {
  skip(test, 'shared memory in Chromium', CHROMIUM.reason, CHROMIUM.enable);
}

test.run();
