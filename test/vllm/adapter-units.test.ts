// The adapter's own tests (integrations/vllm/tests): Python's unittest, against a small service in the same process.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';

const engineTest = withVllm(test);

engineTest("the adapter's tests in Python", async () => {
  const cwd = process.env.MOONCAKE_VLLM_ADAPTER!;
  const args = ['-m', 'unittest', 'discover', '-s', 'tests', '-t', '.'];
  const { status, stderr } = spawnSync(process.env.MOONCAKE_VLLM_ENGINE!, args, {
    cwd,
    encoding: 'utf8',
    timeout: 600_000,
  });
  assert.is(status, 0, stderr);
  const [, count] = /^Ran (\d+) tests/m.exec(stderr) ?? [];
  assert.ok(Number(count) > 50, `${count} tests`);
});

test.run();
