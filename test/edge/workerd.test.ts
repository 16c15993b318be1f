import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { note, ROUNDS } from './measure.js';
import { bundle } from './support/bundle.js';
import { expectation } from './support/expect.js';
import { find } from './support/runtimes.js';
import { serve } from './support/workerd.js';

const WORKER = `import { run } from './test/edge/scenario.js';
import { route } from './test/edge/measure.js';
export default {
  async fetch(request) {
    if (request.method === 'POST') return Response.json(run(await request.json()));
    return Response.json(route(Number(new URL(request.url).searchParams.get('rounds'))));
  },
};`;

const workerd = find('workerd');
if (workerd) {
  test('workerd runs a bundle whose core is a module beside the script', async () => {
    const { input, report } = expectation();
    const files = await bundle({ source: WORKER }, 'workerd');
    assert.equal(files.map(({ name }) => name).sort(), ['core.wasm', 'stdin.js']);
    const served = await serve(workerd, files);
    try {
      // Twice: an isolate keeps its instances of the core between requests.
      for (let request = 0; request < 2; request++) {
        const response = await fetch(served.url, { method: 'POST', body: JSON.stringify(input) });
        const text = await response.text();
        assert.is(response.status, 200, `${text}${served.log()}`);
        assert.equal(JSON.parse(text), report);
      }
      // Time stands still inside a worker, so a long request is measured against a short one.
      const fastest = async (rounds: number) => {
        let ms = Number.POSITIVE_INFINITY;
        for (let run = 0; run < 10; run++) {
          const start = performance.now();
          await (await fetch(`${served.url}/?rounds=${rounds}`)).text();
          ms = Math.min(ms, performance.now() - start);
        }
        return ms;
      };
      const short = await fastest(1);
      note('workerd', (await fastest(ROUNDS + 1)) - short);
    } finally {
      await served.close();
    }
  });
} else {
  skip(test, 'workerd', 'npm has no workerd for this platform', 'npm run test:edge on Linux, macOS or Windows');
}

test.run();
