import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { expectation } from './support/expect.js';
import { find, runScenario } from './support/runtimes.js';

const deno = find('deno');
if (deno) {
  test('Deno runs the package as npm installed it, without any permission', async () => {
    const { input, report } = expectation();
    const options = ['--no-prompt', '--no-remote', '--node-modules-dir=manual'];
    assert.equal(await runScenario('Deno', deno, ['run', ...options], input), report);
  });
} else {
  skip(test, 'Deno', 'npm has no deno for this platform', 'npm run test:edge on Linux, macOS or Windows');
}

test.run();
