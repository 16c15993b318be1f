// An error reaches the call that caused it, whole, and no other.
import {
  blockHashes,
  type CallOptions,
  type MooncakeError,
  type Tokens,
  WorkerPool,
  type WorkerPoolOptions,
} from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LONG, OPTIONS, rejection, sameHashes, tokensOf } from './support.js';

const test = suite('errors');
let pool: WorkerPool;
test.before(() => {
  pool = new WorkerPool({ threads: 2, inline: 'never' });
});
test.after(() => pool.close());

async function refused(promise: Promise<unknown>, code: string, argument: string): Promise<MooncakeError> {
  const error = await rejection(promise);
  assert.is(error.code, code);
  assert.is(error.argument, argument);
  return error;
}

test('an error of a worker is the error of the core', async () => {
  const bad = [1, 2, -3, 4];
  let expected: MooncakeError | undefined;
  try {
    blockHashes(bad, { blockSize: 2 });
  } catch (error) {
    expected = error as MooncakeError;
  }
  const error = await rejection(pool.hash(bad, { blockSize: 2 }));
  for (const field of ['name', 'code', 'message', 'argument', 'value'] as const) {
    assert.equal(error[field], expected?.[field], field);
  }
  assert.equal((await rejection(pool.hash(Int32Array.from(bad), { blockSize: 2 }))).message, expected?.message);
});

test('the neighbours of a bad call answer', async () => {
  const calls = Array.from({ length: 200 }, (_, i) => {
    const tokens = Int32Array.from(tokensOf(i, 64));
    if (i % 5 === 0) tokens[i % 64] = -1 - i;
    return pool.hash(tokens, OPTIONS);
  });
  for (const [i, outcome] of (await Promise.allSettled(calls)).entries()) {
    if (i % 5 === 0) {
      assert.is(outcome.status, 'rejected');
      assert.is((outcome as PromiseRejectedResult).reason.value, -1 - i);
    } else {
      assert.is(outcome.status, 'fulfilled');
      sameHashes((outcome as PromiseFulfilledResult<never>).value, blockHashes(tokensOf(i, 64), OPTIONS));
    }
  }
});

test('the error of a list names the prompt by its place in the list', async () => {
  const prompts: Tokens[] = Array.from({ length: 64 }, (_, i) => tokensOf(i, 4096));
  prompts[57] = Int32Array.from({ length: 32 }, (_, i) => (i === 9 ? -7 : i));
  const error = await refused(pool.hashBatch(prompts, OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts[57][9]');
  assert.match(error.message, /^prompts\[57\]\[9\] must be/);
  const named = prompts.map((tokens) => ({ tokens }));
  await refused(pool.hashBatch(named, OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts[57].tokens[9]');
  await refused(
    pool.hashBatch([...named.slice(0, 57), { tokens: [1], parent: 'beef' }], OPTIONS),
    'ERR_INVALID_ARGUMENT',
    'prompts[57].parent',
  );
});

test('what cannot be sent is refused by name and takes no neighbour along', async () => {
  const outcomes = await Promise.allSettled([
    ...Array.from({ length: 8 }, (_, i) => pool.hash(tokensOf(i, 64), OPTIONS)),
    pool.hash(tokensOf(1, 64), { ...OPTIONS, extraKeys: [[(() => 1) as never]] }),
    ...Array.from({ length: 8 }, (_, i) => pool.hash(tokensOf(i, 64), OPTIONS)),
  ]);
  const rejected = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
  assert.equal(
    rejected.map(({ reason }) => [reason.code, reason.argument]),
    [['ERR_INVALID_ARGUMENT', 'extraKeys[0][0]']],
  );
});

test('arguments that throw while they are read take no neighbour along', async () => {
  const thrower = {
    get bytes_hex(): string {
      throw new Error('a getter of the caller');
    },
  };
  const outcomes = await Promise.allSettled([
    ...Array.from({ length: 8 }, (_, i) => pool.hash(tokensOf(i, 64), OPTIONS)),
    pool.hash(tokensOf(1, 64), { ...OPTIONS, extraKeys: [[thrower]] }),
    ...Array.from({ length: 8 }, (_, i) => pool.hash(tokensOf(i, 64), OPTIONS)),
  ]);
  const rejected = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
  assert.equal(
    rejected.map(({ reason }) => reason.message),
    ['worker: a getter of the caller'],
  );
});

test('memory given away while its call waits is an error of that call', async () => {
  const small = new WorkerPool({ threads: 1, inline: 'never' });
  const running = [small.hash(LONG, OPTIONS), small.hash(LONG, OPTIONS)];
  const gone = tokensOf(1, 64);
  const [lost, kept] = [small.hash(gone, OPTIONS), small.hash(tokensOf(2, 64), OPTIONS)];
  structuredClone(gone, { transfer: [gone.buffer] });
  await refused(lost, 'ERR_INVALID_ARGUMENT', 'tokens');
  sameHashes(await kept, blockHashes(tokensOf(2, 64), OPTIONS));
  await Promise.all(running);
  assert.is(small.stats.running, 0);
  await small.close();
});

test('bad arguments are refused and the pool is usable afterwards', async () => {
  const any = (value: unknown) => value as never;
  await refused(pool.hash(any('tokens'), OPTIONS), 'ERR_INVALID_ARGUMENT', 'tokens');
  await refused(pool.hash(any(undefined), OPTIONS), 'ERR_INVALID_ARGUMENT', 'tokens');
  await refused(pool.hash([1.5], { blockSize: 1 }), 'ERR_INVALID_ARGUMENT', 'tokens[0]');
  await refused(pool.hash([2 ** 32], { blockSize: 1 }), 'ERR_INVALID_ARGUMENT', 'tokens[0]');
  await refused(pool.hash([any('1')], { blockSize: 1 }), 'ERR_INVALID_ARGUMENT', 'tokens[0]');
  await refused(pool.hash([1], { blockSize: 0 }), 'ERR_INVALID_ARGUMENT', 'blockSize');
  await refused(pool.hash([1], any(7)), 'ERR_INVALID_ARGUMENT', 'options');
  await refused(pool.hash([1], { blockSize: 1, parent: 'beef' }), 'ERR_INVALID_ARGUMENT', 'parent');
  await refused(pool.hash([1], { blockSize: 1, algorithm: 'xxhash' }), 'ERR_UNDEFINED_HASH', 'seed');
  await refused(pool.hashBatch(any(1), OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts');
  await refused(pool.hash([any(1n)], { blockSize: 1 }), 'ERR_INVALID_ARGUMENT', 'tokens[0]');
  await refused(pool.hash([any(Symbol('1'))], { blockSize: 1 }), 'ERR_INVALID_ARGUMENT', 'tokens[0]');
  await refused(pool.hashBatch(new Array(2), OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts[0].tokens');
  await refused(pool.hashBatch([any(1)], OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts[0]');
  await refused(pool.hashBatch([[1], any({})], OPTIONS), 'ERR_INVALID_ARGUMENT', 'prompts[1].tokens');
  for (const [call, argument] of [
    [5, 'call'],
    [{ signal: 'x' }, 'signal'],
    [{ timeoutMs: 0 }, 'timeoutMs'],
    [{ timeoutMs: Number.NaN }, 'timeoutMs'],
    [{ timeoutMs: 2 ** 31 }, 'timeoutMs'],
  ] as [CallOptions, string][]) {
    await refused(pool.hash([1], OPTIONS, call), 'ERR_INVALID_ARGUMENT', argument);
  }
  sameHashes(await pool.hash(tokensOf(1, 64), OPTIONS), blockHashes(tokensOf(1, 64), OPTIONS));
});

test('bad options of close are refused, and the pool goes on', async () => {
  await refused(pool.close(1 as never), 'ERR_INVALID_ARGUMENT', 'options');
  await refused(pool.close({ force: 'yes' as never }), 'ERR_INVALID_ARGUMENT', 'force');
  assert.is((await pool.hash(tokensOf(1, 64), OPTIONS)).length, 4);
});

test('bad options of a pool are refused', () => {
  for (const [options, argument] of [
    [1, 'options'],
    [{ threads: 0 }, 'threads'],
    [{ threads: 257 }, 'threads'],
    [{ threads: '2' }, 'threads'],
    [{ maxQueue: 0 }, 'maxQueue'],
    [{ maxQueue: Number.POSITIVE_INFINITY }, 'maxQueue'],
    [{ onFull: 'drop' }, 'onFull'],
    [{ inline: true }, 'inline'],
    [{ workerFile: '/nowhere/worker.js' }, 'workerFile'],
    [{ workerFile: 3 }, 'workerFile'],
  ] as [WorkerPoolOptions, string][]) {
    assert.throws(
      () => new WorkerPool(options),
      (error: MooncakeError) => error.code === 'ERR_INVALID_ARGUMENT' && error.argument === argument,
      argument,
    );
  }
});

test.run();
