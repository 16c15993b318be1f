import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { expectation } from './support/expect.js';
import { find, runScenario } from './support/runtimes.js';

const bun = find('bun');
if (bun) {
  test('Bun runs the package as npm installed it', async () => {
    const { input, report } = expectation();
    assert.equal(await runScenario('Bun', bun, ['run', '--no-install'], input), report);
  });
} else {
  skip(test, 'Bun', 'npm has no bun for this platform', 'npm run test:edge on Linux, macOS or Windows');
}

test.run();
