import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { type measure, note } from './measure.js';
import type { ScenarioInput, ScenarioReport } from './scenario.js';
import { bundle } from './support/bundle.js';
import { CHROMIUM, open } from './support/chromium.js';
import { expectation } from './support/expect.js';

type Scenario = (input: ScenarioInput) => ScenarioReport | Promise<ScenarioReport>;
const scenario = (input: ScenarioInput) => (globalThis as unknown as { run: Scenario }).run(input);
const measured = () => (globalThis as unknown as { measure: typeof measure }).measure();
const html = (text: string) => ({
  name: 'index.html',
  contents: Buffer.from(`<!doctype html><title>edge</title>${text}`),
});

const IMPORT_MAP = {
  imports: {
    'mooncake-ts/edge': '/node_modules/mooncake-ts/dist/src/edge/index.js',
    '#core-wasm': '/node_modules/mooncake-ts/dist/src/core/binary.embedded.js',
  },
};

if (CHROMIUM.path) {
  test('Chromium runs the package from an import map, without a bundler', async () => {
    const { input, report } = expectation();
    const site = await open([
      html(`<script type="importmap">${JSON.stringify(IMPORT_MAP)}</script>
        <script type="module">
          import { run } from '/test/edge/scenario.js';
          import { measure } from '/test/edge/measure.js';
          Object.assign(globalThis, { run, measure });
        </script>`),
    ]);
    try {
      assert.equal(await site.page.evaluate(scenario, input), report);
      note('Chromium', await site.page.evaluate(measured, undefined));
    } finally {
      await site.close();
    }
  });

  test('Chromium runs a bundle in a Worker', async () => {
    const { input, report } = expectation();
    const [{ contents }] = await bundle(
      { source: "import { run } from './test/edge/scenario.js'; onmessage = ({ data }) => postMessage(run(data));" },
      'browser',
      { minify: true },
    );
    const site = await open([
      { name: 'worker.js', contents },
      html(`<script type="module">
        globalThis.run = (input) => new Promise((resolve, reject) => {
          const worker = new Worker('/worker.js', { type: 'module' });
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
          worker.postMessage(input);
        });</script>`),
    ]);
    try {
      assert.equal(await site.page.evaluate(scenario, input), report);
    } finally {
      await site.close();
    }
  });
} else {
  skip(test, 'Chromium', CHROMIUM.reason, CHROMIUM.enable);
}

test.run();
