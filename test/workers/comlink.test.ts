// The comlink door: the same pool over Workers and over MessagePorts.
import { Worker } from 'node:worker_threads';
import { blockHashes, blockHashesBatch } from 'mooncake-ts';
import { connect, expose, type WorkerEndpoint } from 'mooncake-ts/workers';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, sameHashes, tokensOf } from './support.js';

const SHORT = tokensOf(1, 64);
const script = new URL('./comlink-worker.js', import.meta.url);

function port(): WorkerEndpoint {
  const { port1, port2 } = new MessageChannel();
  expose(port2);
  return port1;
}

const doors: Record<string, () => WorkerEndpoint> = { Worker: () => new Worker(script), MessagePort: port };

for (const [name, open] of Object.entries(doors)) {
  const test = suite(name);

  test('answers are those of this thread', async () => {
    const pool = connect(open, { threads: 2, inline: 'never' });
    const prompts = Array.from({ length: 100 }, (_, i) => tokensOf(i, i * 61));
    const expected = blockHashesBatch(prompts, OPTIONS);
    for (const [i, hashes] of (await pool.hashBatch(prompts, OPTIONS)).entries()) sameHashes(hashes, expected[i]);
    sameHashes(await pool.hash(LONG, OPTIONS), blockHashes(LONG, OPTIONS));
    await pool.close();
  });

  test('without shared memory everything travels with the messages', async () => {
    const isolated = Object.getOwnPropertyDescriptor(globalThis, 'crossOriginIsolated');
    Object.defineProperty(globalThis, 'crossOriginIsolated', { value: false, configurable: true });
    const pool = connect(open, { threads: 1, inline: 'never' });
    if (isolated) Object.defineProperty(globalThis, 'crossOriginIsolated', isolated);
    else Reflect.deleteProperty(globalThis, 'crossOriginIsolated');
    const kept = SHORT.slice();
    sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(kept, OPTIONS));
    assert.equal(SHORT, kept);
    await pool.close();
  });

  test('errors arrive whole, at their own caller', async () => {
    const pool = connect(open, { threads: 1, inline: 'never' });
    const [good, bad, odd] = await Promise.allSettled([
      pool.hash(SHORT, OPTIONS),
      pool.hash(Int32Array.of(1, -2), { blockSize: 1 }),
      pool.hash(SHORT, { ...OPTIONS, extraKeys: [[(() => 1) as never]] }),
    ]);
    assert.is(good.status, 'fulfilled');
    for (const [outcome, argument] of [
      [bad, 'tokens[1]'],
      [odd, 'extraKeys[0][0]'],
    ] as const) {
      const { code, argument: named } = (outcome as PromiseRejectedResult).reason;
      assert.equal([code, named], ['ERR_INVALID_ARGUMENT', argument]);
    }
    await pool.close();
  });

  test('calls are aborted and time out', async () => {
    const pool = connect(open, { threads: 1, inline: 'never' });
    const controller = new AbortController();
    const aborted = rejection(pool.hash(LONG, OPTIONS, { signal: controller.signal }));
    controller.abort();
    assert.is((await aborted).code, 'ERR_ABORTED');
    assert.is((await rejection(pool.hash(LONG, OPTIONS, { timeoutMs: 1 }))).code, 'ERR_TIMEOUT');
    sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
    await pool.close();
    assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_CLOSED');
  });

  test.run();
}

const death = suite('death behind comlink');

death('a worker that dies is opened again; its calls, and no others, are lost', async () => {
  const workers: Worker[] = [];
  const open = () => {
    const worker = new Worker(script);
    workers.push(worker);
    return worker;
  };
  const pool = connect(open, { threads: 2, inline: 'never' });
  await Promise.all(Array.from({ length: 8 }, () => pool.hash(SHORT, OPTIONS)));
  const running = Promise.allSettled([pool.hash(LONG, OPTIONS), pool.hash(LONG, OPTIONS)]);
  await workers[0].terminate();
  const outcomes = await running;
  const lost = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
  assert.equal(
    lost.map(({ reason }) => reason.code),
    ['ERR_WORKER'],
  );
  assert.is(workers.length, 3);
  await Promise.all(Array.from({ length: 50 }, () => pool.hash(SHORT, OPTIONS)));
  await pool.close();
});

death('a port whose other end closes is opened again', async () => {
  const others: MessagePort[] = [];
  const pool = connect(
    () => {
      const { port1, port2 } = new MessageChannel();
      expose(port2);
      others.push(port2);
      return port1;
    },
    { threads: 1, inline: 'never' },
  );
  await pool.hash(SHORT, OPTIONS);
  others[0].close();
  const outcome = await pool.hash(SHORT, OPTIONS).then(
    () => 'answered',
    (error) => error.code,
  );
  assert.ok(outcome === 'answered' || outcome === 'ERR_WORKER');
  sameHashes(await pool.hash(SHORT, OPTIONS), blockHashes(SHORT, OPTIONS));
  assert.is(others.length, 2);
  await pool.close();
});

death('workers that cannot load are an error, not a wait without end', async () => {
  const pool = connect(() => new Worker('throw new Error("no core here")', { eval: true }), {
    threads: 2,
    inline: 'never',
  });
  for (let i = 0; i < 3; i++) assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_WORKER');
  await pool.close();
});

death('a worker that cannot be opened again leaves its calls with an error', async () => {
  const others: MessagePort[] = [];
  const pool = connect(
    () => {
      if (others.length > 0) throw new Error('no more workers');
      const { port1, port2 } = new MessageChannel();
      expose(port2);
      others.push(port2);
      return port1;
    },
    { threads: 1, inline: 'never' },
  );
  await pool.hash(SHORT, OPTIONS);
  const running = rejection(pool.hash(LONG, OPTIONS));
  others[0].close();
  assert.is((await running).code, 'ERR_WORKER');
  assert.is((await rejection(pool.hash(SHORT, OPTIONS))).code, 'ERR_WORKER');
  await pool.close();
});

death('a worker that cannot be opened at the start ends those that were', async () => {
  const workers: Worker[] = [];
  const open = () => {
    if (workers.length === 2) throw new Error('no more workers');
    const worker = new Worker(script);
    workers.push(worker);
    return worker;
  };
  const ended = () => Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve))));
  assert.throws(() => connect(open, { threads: 3 }), 'no more workers');
  await ended();
});

death('what is no worker is refused', async () => {
  for (const endpoint of [undefined, null, 5, {}]) {
    assert.throws(
      () => connect(() => endpoint as never, { threads: 1 }),
      (error: { code: string; argument: string }) =>
        error.code === 'ERR_INVALID_ARGUMENT' && error.argument === 'open()',
    );
  }
});

death('what is no way to open a worker is refused', async () => {
  assert.throws(
    () => connect(undefined as never),
    (error: { code: string; argument: string }) => error.code === 'ERR_INVALID_ARGUMENT' && error.argument === 'open',
  );
});

death.run();
