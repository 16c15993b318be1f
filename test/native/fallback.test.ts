// Without the accelerator a program is told once, on stderr, and never where it asked for that itself.
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const PROGRAM = `
import { TransferEngine } from 'mooncake-ts';
for (let i = 0; i < 2; i++) {
  const engine = await TransferEngine.create();
  console.log(engine.accelerated);
  await engine.close();
}`;

/** Makes two engines, one after the other, in a process of their own. */
function engines(MOONCAKE_NATIVE: string) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    cwd: dirname(fileURLToPath(import.meta.url)),
    encoding: 'utf8',
    env: { ...process.env, MOONCAKE_NATIVE },
    timeout: 60_000,
  });
  assert.is(status, 0, stderr);
  assert.is(stdout, 'false\nfalse\n');
  return stderr;
}

test('the first engine says that TypeScript moves the bytes, and why', () => {
  const stderr = engines('/nowhere/mooncake.node');
  assert.is(stderr.split('MOONCAKE_NO_ACCELERATOR').length - 1, 1, stderr);
  assert.match(stderr, '/nowhere/mooncake.node: ');
});

test('who switched it off is not told', () => {
  assert.is(engines('off'), '');
});

test.run();
