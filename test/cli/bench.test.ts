import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';

const SMALL = '--sessions 4 --turns 5 --system 1000 --first 500 --input 200 --output 60 --block 16'.split(' ');

test('bench agentic --json prints one line for each number of GPUs', async () => {
  const { code, stdout, stderr } = await run(['bench', 'agentic', '--gpus', '12,36', ...SMALL, '--json']);
  assert.is(code, 0, stderr);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(
    lines.map(({ name, unit, peer }) => [name, unit, peer]),
    [
      ['agentic/12-gpus', 'hit rate', 'no shared pool'],
      ['agentic/36-gpus', 'hit rate', 'no shared pool'],
    ],
  );
  for (const { value, baseline, ratio, hitTokens, localHitTokens, promptTokens } of lines) {
    assert.is(value, Number((hitTokens / promptTokens).toFixed(4)));
    assert.is(baseline, Number((localHitTokens / promptTokens).toFixed(4)));
    assert.ok(Math.abs(ratio - value / baseline) < 1e-3);
  }
  assert.is(lines[1].sessions, 12);
});

test('bench agentic prints a table for people', async () => {
  const { code, stdout } = await run(['bench', 'agentic', '--gpus', '12', ...SMALL]);
  assert.is(code, 0);
  assert.match(stdout, /^1,000 common tokens, 500 first input, 200 a turn, 60 answer, 5 turns/);
  assert.match(stdout, /GPUs +sessions +requests +no pool +with pool/);
  assert.match(stdout, /\n +12 +4 +20 +\d+\.\d\d % +\d+\.\d\d %/);
});

test('bad values are refused by flag', async () => {
  for (const [args, message] of [
    [['--gpus', '12,x'], /--gpus must be .*got "x"/],
    [['--gpus', '12,14'], /--gpus must be a multiple of 12, .*got "14"/],
    [['--gpus', '252'], /--gpus must be .*at most 240, got "252"/],
    [['--token-bytes', '0'], /tokenBytes must be an integer from 1 .*got 0/],
    [['--hbm', '1'], /hbm must be room for one whole context.*got 1/],
    [['--policy', 'opt'], /--policy must be one of "lru".*got "opt"/],
    [['--segment', '-3'], /--segment must be a number, got "-3"/],
  ] as const) {
    const { code, stdout, stderr } = await run(['bench', 'agentic', ...args]);
    assert.is(code, 1);
    assert.is(stdout, '');
    assert.match(stderr, message);
  }
});

test('an unknown benchmark is refused', async () => {
  const { code, stderr } = await run(['bench', 'nothing']);
  assert.is(code, 1);
  assert.match(stderr, /unknown command 'nothing'/);
});

test.run();
