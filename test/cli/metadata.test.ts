// `mooncake-ts metadata`: says where it listens, serves, and stops cleanly.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';

async function start(...args: string[]) {
  const child = spawn(process.execPath, [main, 'metadata', '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(child.stdout!.setEncoding('utf8'), 'data');
  return { child, line: line as string, exited: once(child, 'exit') };
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`serves engines until ${signal}`, async () => {
    const { child, line, exited } = await start('--json');
    const { url } = JSON.parse(line);
    const engine = await TransferEngine.create({ metadata: url });
    const other = await TransferEngine.create({ metadata: url });
    assert.is((await engine.open(other.name)).name, other.name);
    assert.is((await fetch(url.replace('/metadata', '/health'))).status, 200);
    await Promise.all([engine.close(), other.close()]);
    child.kill(signal);
    assert.is((await exited)[0], code);
  });
}

test('prints its address for people, and listens where it is told', async () => {
  const { child, line, exited } = await start('--host', '::1');
  assert.match(line, /http:\/\/\[::1\]:\d+\/metadata/);
  child.kill('SIGTERM');
  await exited;
});

test('--help, and flags that are wrong', async () => {
  const help = await run(['metadata', '--help']);
  assert.is(help.code, 0);
  assert.match(help.stdout, /--max-keys/);
  const bad = await run(['metadata', '--port', '99999']);
  assert.is(bad.code, 1);
  assert.match(bad.stderr, /--port must be an integer from 0 to 65535.*ERR_INVALID_ARGUMENT/);
});

test.run();
