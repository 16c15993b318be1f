// The queue: its bound, back-pressure, and calls that end before their turn or in the middle of it.
import { getEventListeners } from 'node:events';
import { blockHashes, WorkerPool } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, sameHashes, tokensOf } from './support.js';

const SHORT = tokensOf(1, 64);

/** A pool of one worker whose two lanes are taken by long calls: what is called next waits. */
function busy(options: object = {}) {
  const pool = new WorkerPool({ threads: 1, inline: 'never', ...options });
  const running = [pool.hash(LONG, OPTIONS), pool.hash(LONG, OPTIONS)];
  assert.is(pool.stats.running, 2);
  assert.is(pool.stats.queued, 0);
  return { pool, running };
}

test('a full queue refuses, and takes calls again when it has room', async () => {
  const { pool, running } = busy({ maxQueue: 3, onFull: 'throw' });
  const queued = [1, 2, 3].map(() => pool.hash(SHORT, OPTIONS));
  assert.is(pool.stats.queued, 3);
  const error = await rejection(pool.hash(SHORT, OPTIONS));
  assert.is(error.code, 'ERR_QUEUE_FULL');
  assert.is(error.value, 3);
  await pool.ready();
  assert.ok(pool.stats.queued < 3);
  await pool.hash(SHORT, OPTIONS);
  await Promise.all([...running, ...queued]);
  await pool.close();
});

test('by default a call waits its turn behind a full queue', async () => {
  const { pool, running } = busy({ maxQueue: 1 });
  const order: number[] = [];
  const calls = [0, 1, 2, 3].map(async (i) => {
    sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
    order.push(i);
  });
  await Promise.all([...calls, ...running]);
  assert.equal(order, [0, 1, 2, 3]);
  await pool.close();
});

test('a producer that awaits ready() never overfills the queue', async () => {
  const pool = new WorkerPool({ threads: 1, inline: 'never', maxQueue: 4, onFull: 'throw' });
  const calls: Promise<unknown>[] = [];
  for (let i = 0; i < 200; i++) {
    await pool.ready();
    calls.push(pool.hash(SHORT, OPTIONS));
  }
  await Promise.all(calls);
  assert.is(pool.stats.completed, 200);
  await pool.close();
});

test('an aborted call rejects with its reason at every stage', async () => {
  const reason = new Error('client went away');
  const { pool, running } = busy();

  const before = await rejection(pool.hash(SHORT, OPTIONS, { signal: AbortSignal.abort(reason) }));
  assert.is(before.code, 'ERR_ABORTED');
  assert.is(before.cause, reason);

  const waiting = new AbortController();
  const queued = pool.hash(SHORT, OPTIONS, { signal: waiting.signal });
  assert.is(pool.stats.queued, 1);
  waiting.abort(reason);
  assert.is(pool.stats.queued, 0);
  assert.is((await rejection(queued)).code, 'ERR_ABORTED');

  await Promise.all(running);
  const started = new AbortController();
  const long = pool.hash(LONG, OPTIONS, { signal: started.signal });
  assert.is(pool.stats.running, 1);
  started.abort(reason);
  assert.is((await rejection(long)).cause, reason);
  assert.is(pool.stats.running, 1);

  sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
  const after = new AbortController();
  const done = await pool.hash(SHORT, OPTIONS, { signal: after.signal });
  after.abort(reason);
  assert.is(done.length, 4);
  await pool.close();
});

test('an aborted list leaves its rest undone', async () => {
  const { pool, running } = busy();
  const controller = new AbortController();
  const list = pool.hashBatch(Array<Uint32Array>(50).fill(LONG), OPTIONS, { signal: controller.signal });
  controller.abort();
  await rejection(list);
  await Promise.all(running);
  sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
  assert.is(pool.stats.running, 0);
  await pool.close();
});

test('a deadline ends a call that waits and one that runs', async () => {
  const { pool, running } = busy();
  const waits = rejection(pool.hash(SHORT, OPTIONS, { timeoutMs: 1 }));
  const pending = await Promise.race([waits, Promise.all(running).then(() => 'the others first')]);
  assert.is((pending as { code: string }).code, 'ERR_TIMEOUT');
  assert.is((pending as { value: number }).value, 1);
  await Promise.all(running);
  const runs = await rejection(pool.hash(LONG, OPTIONS, { timeoutMs: 1 }));
  assert.is(runs.code, 'ERR_TIMEOUT');
  assert.is((await pool.hash(SHORT, OPTIONS, { timeoutMs: 60_000 })).length, 4);
  await pool.close();
});

test('many calls may share a signal: one listener, which goes with the last of them', async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on('warning', note);
  const { pool, running } = busy();
  const { signal } = new AbortController();
  const calls = Array.from({ length: 50 }, () => pool.hash(SHORT, OPTIONS, { signal }));
  assert.is(getEventListeners(signal, 'abort').length, 1);
  await Promise.all([...calls, ...running]);
  assert.is(getEventListeners(signal, 'abort').length, 0);

  const controller = new AbortController();
  const done = pool.hash(SHORT, OPTIONS, { signal: controller.signal });
  await done;
  const aborted = Array.from({ length: 50 }, () => rejection(pool.hash(LONG, OPTIONS, { signal: controller.signal })));
  controller.abort();
  for (const error of await Promise.all(aborted)) assert.is(error.code, 'ERR_ABORTED');
  assert.is(getEventListeners(controller.signal, 'abort').length, 0);
  process.off('warning', note);
  assert.equal(warnings, []);
  await pool.close();
});

test('waiting is counted', async () => {
  const { pool, running } = busy();
  const calls = [1, 2, 3].map(() => pool.hash(SHORT, OPTIONS));
  await Promise.all([...running, ...calls]);
  const { wait, completed, failed, queued } = pool.stats;
  assert.ok(wait.p99 > wait.p50 || wait.p50 > 0);
  assert.equal([completed, failed, queued], [5, 0, 0]);
  await pool.close();
});

test.run();
