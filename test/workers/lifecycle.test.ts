// What a pool opens it closes.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { WorkerPool } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, tokensOf } from './support.js';

const SHORT = tokensOf(1, 64);

test('close waits for the calls that were taken and refuses new ones', async () => {
  const pool = new WorkerPool({ threads: 1, inline: 'never' });
  const calls = [LONG, LONG, SHORT, SHORT].map((tokens) => pool.hash(tokens, OPTIONS));
  let closed = false;
  const closing = pool.close().then(() => {
    closed = true;
  });
  assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_CLOSED');
  await Promise.all(calls.map((call) => call.then(() => assert.not(closed))));
  await closing;
  await pool.close();
  await pool.ready();
  assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_CLOSED');
});

test('close with force ends at once and rejects what was taken', async () => {
  const pool = new WorkerPool({ threads: 1, inline: 'never' });
  const calls = [LONG, LONG, SHORT].map((tokens) => rejection(pool.hash(tokens, OPTIONS)));
  await pool.close({ force: true });
  for (const error of await Promise.all(calls)) assert.is(error.code, 'ERR_CLOSED');
  assert.is(pool.stats.running, 0);
});

test('force cuts a close short', async () => {
  const pool = new WorkerPool({ threads: 1, inline: 'never' });
  const call = rejection(pool.hash(LONG, OPTIONS));
  const closing = pool.close();
  await pool.close({ force: true });
  await closing;
  assert.is((await call).code, 'ERR_CLOSED');
});

test('a closed pool refuses small calls too', async () => {
  const pool = new WorkerPool({ threads: 1 });
  await pool[Symbol.asyncDispose]();
  assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_CLOSED');
});

test('a script that forgets to close its pool ends by itself', async () => {
  const script = `
    import { WorkerPool } from 'mooncake-ts';
    const pool = new WorkerPool({ threads: 2, inline: 'never' });
    const hashes = await pool.hash(Array.from({ length: 64 }, (_, i) => i), { blockSize: 16 });
    console.log(hashes.length);
    new WorkerPool();`;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script], { timeout: 60_000 });
  assert.is(stdout.trim(), '4');
});

test('a hundred pools and more leave nothing behind', async () => {
  const cycle = async () => {
    const pool = new WorkerPool({ threads: 1, inline: 'never' });
    await pool.hash(SHORT, OPTIONS);
    await pool.close();
  };
  const resources = () => process.getActiveResourcesInfo().filter((name) => name !== 'TTYWrap' && name !== 'PipeWrap');
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const held = async () => {
    collect();
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return { heapUsed, arrayBuffers };
  };
  for (let i = 0; i < 10; i++) await cycle();
  const before = { ...(await held()), resources: resources() };
  for (let i = 0; i < 120; i++) await cycle();
  const after = await held();
  assert.equal(resources(), before.resources);
  // One arena is 2 MiB. What threads leave in the allocator of the C library is not counted: it is used again.
  assert.ok(after.arrayBuffers - before.arrayBuffers < 4 << 20, `array buffers: ${after.arrayBuffers}`);
  assert.ok(after.heapUsed - before.heapUsed < 4 << 20, `heap: ${after.heapUsed}`);
});

test.run();
