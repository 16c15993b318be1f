import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';
import { skip } from '../support/skip.js';

test('--help lists the commands and exits with 0', async () => {
  const { code, stdout } = await run(['--help']);
  assert.is(code, 0);
  assert.match(stdout, /Usage: mooncake-ts/);
});

test('--version prints the version of the package', async () => {
  const { stdout } = await run(['--version']);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});

test('an unknown command is refused with a hint', async () => {
  const { code, stderr } = await run(['hsah']);
  assert.is(code, 1);
  assert.match(stderr, /unknown command 'hsah'/);
});

test('a command of a later version says so', async () => {
  const { code, stderr } = await run(['indexer', '--port', '50051']);
  assert.is(code, 1);
  assert.match(stderr, /mooncake-ts indexer is not supported.*\[ERR_NOT_SUPPORTED\]/);
});

const full = '/dev/full';
if (existsSync(full)) {
  test('output that cannot be written is an error', async () => {
    const stdout = openSync(full, 'w');
    const args = [main, 'replay', '--sessions', '5', '--json'];
    const { status, stderr } = spawnSync(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'] });
    closeSync(stdout);
    assert.is(status, 1);
    assert.match(String(stderr), /^mooncake-ts: standard output cannot be written: .*ENOSPC/);
  });
} else {
  skip(test, 'output that cannot be written is an error', `there is no ${full}`, 'run the tests on Linux');
}

test.run();
