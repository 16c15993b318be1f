// A worker that dies takes its own calls with it and nothing else.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { blockHashes, WorkerPool } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, sameHashes, tokensOf } from './support.js';

const SHORT = tokensOf(1, 64);
let started: Worker[] = [];
process.on('worker', (worker) => started.push(worker));
const folder = mkdtempSync(join(tmpdir(), 'mooncake-workers-'));
test.before.each(() => {
  started = [];
});
test.after(() => rmSync(folder, { recursive: true }));

/** A worker of its own making, in place of the package's. */
function workerFile(name: string, body: string): string {
  const file = join(folder, `${name}.mjs`);
  writeFileSync(file, body);
  return file;
}

test('a worker killed in the middle of a call is replaced', async () => {
  const pool = new WorkerPool({ threads: 2, inline: 'never' });
  await Promise.all([pool.hash(SHORT, OPTIONS), pool.hash(SHORT, OPTIONS)]);
  assert.is(started.length, 2);
  const running = Promise.allSettled([pool.hash(LONG, OPTIONS), pool.hash(LONG, OPTIONS)]);
  await started[0].terminate();
  const outcomes = await running;
  const lost = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
  assert.is(lost.length, 1);
  assert.is(lost[0].reason.code, 'ERR_WORKER');
  await Promise.all(Array.from({ length: 50 }, () => pool.hash(SHORT, OPTIONS)));
  assert.is(started.length, 3);
  sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
  await pool.close();
});

test('every worker may die, again and again', async () => {
  const pool = new WorkerPool({ threads: 2, inline: 'never' });
  for (let round = 0; round < 3; round++) {
    await pool.hash(SHORT, OPTIONS);
    const running = Promise.allSettled([1, 2, 3, 4].map(() => pool.hash(LONG, OPTIONS)));
    await Promise.all(started.splice(0).map((worker) => worker.terminate()));
    // What no worker had yet goes to a successor, if there is one: some were killed while they started.
    const outcomes = await running;
    const lost = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    assert.ok(lost.length > 0);
    for (const { reason } of lost) assert.is(reason.code, 'ERR_WORKER');
  }
  sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
  assert.is(pool.stats.running, 0);
  await pool.close();
});

test('process.exit in a worker is an error of its calls', async () => {
  const file = workerFile('exits', 'export default (batch) => batch.jobs.length ? process.exit(3) : { results: [] };');
  const pool = new WorkerPool({ threads: 1, inline: 'never', workerFile: file });
  for (let i = 0; i < 2; i++) {
    const error = await rejection(pool.hash(SHORT, OPTIONS));
    assert.is(error.code, 'ERR_WORKER');
    assert.match(error.message, /exited with code: 3/);
  }
  await pool.close();
});

test('an answer that is none is an error of its calls, and frees their lanes', async () => {
  for (const [name, answer] of Object.entries({
    nothing: 'undefined',
    empty: '{ results: [] }',
    odd: '{ results: [{}] }',
  })) {
    const pool = new WorkerPool({
      threads: 1,
      inline: 'never',
      workerFile: workerFile(name, `export default () => (${answer});`),
    });
    for (let i = 0; i < 3; i++) assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_WORKER');
    assert.is(pool.stats.running, 0);
    await pool.close();
  }
});

test('an exception outside a task is an error of the calls of its worker', async () => {
  const file = workerFile(
    'throws',
    'export default () => new Promise(() => { setTimeout(() => { throw new Error("stray"); }); });',
  );
  const pool = new WorkerPool({ threads: 1, inline: 'never', workerFile: file });
  const error = await rejection(pool.hash(SHORT, OPTIONS));
  assert.is(error.code, 'ERR_WORKER');
  assert.match(error.message, /stray/);
  await pool.close();
});

test('workers that cannot load are an error, not a wait without end', async () => {
  const file = workerFile('broken', 'throw new Error("no core here");');
  const pool = new WorkerPool({ threads: 2, inline: 'never', workerFile: file });
  for (let i = 0; i < 3; i++) {
    const error = await rejection(pool.hash(SHORT, OPTIONS));
    assert.is(error.code, 'ERR_WORKER');
    if (i === 0) assert.match(error.message, /no core here/);
  }
  await pool.close();
});

test.run();
