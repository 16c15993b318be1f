import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';

const trace = join(dirname(fileURLToPath(import.meta.url)), '../vectors/replay/trace.jsonl');
const folder = mkdtempSync(join(tmpdir(), 'mooncake-replay-'));
test.after(() => rmSync(folder, { recursive: true }));

const results = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('--json prints one line for each policy and capacity', async () => {
  const { code, stdout, stderr } = await run([
    'replay',
    trace,
    '--policy',
    'lru,opt',
    '--blocks',
    '20,120,inf',
    '--json',
  ]);
  assert.is(code, 0, stderr);
  const lines = results(stdout);
  assert.equal(
    lines.map(({ policy, blocks, hitRate }) => [policy, blocks, hitRate]),
    // From test/vectors/replay/expected.json: 1080, 1921, 1987 and 1567, 1987, 1987 of 2416 blocks.
    [
      ['lru', 20, 0.447],
      ['lru', 120, 0.7951],
      ['lru', 'inf', 0.8224],
      ['opt', 20, 0.6486],
      ['opt', 120, 0.8224],
      ['opt', 'inf', 0.8224],
    ],
  );
  assert.equal(Object.keys(lines[0]), [
    'policy',
    'blocks',
    'hitRate',
    'hitBlocks',
    'totalBlocks',
    'requests',
    'uniqueBlocks',
    'evictions',
    'seconds',
  ]);
  assert.is(stdout[0], '{', 'a contract: "policy" is the first key');
});

test('a table for people, with all policies by default', async () => {
  const { code, stdout } = await run(['replay', trace]);
  assert.is(code, 0);
  assert.match(stdout, /^trace\.jsonl\n260 requests .* 2,416 blocks, 429 of them distinct\n/);
  assert.match(stdout, /hit rate +lru +fifo +s3fifo +lfu +opt\n/);
  assert.match(stdout, /no limit +0\.8224 +0\.8224 +0\.8224 +0\.8224 +0\.8224\n/);
  const [rates, evictions] = stdout.split(/evictions +lru.*\n/);
  for (const table of [rates, evictions]) {
    // Shares of the 429 distinct blocks: 1/64, 1/32, … 1/2 in two digits, then all.
    const capacities = [...table.matchAll(/^ +(\d+|no limit) /gm)].map(([, blocks]) => blocks);
    assert.equal(capacities, ['7', '13', '27', '54', '110', '210', 'no limit']);
  }
});

test('standard input is a trace too', async () => {
  const args = ['replay', '-', '--policy', 'lru', '--blocks', '20', '--json'];
  const { code, stdout } = await run(args, readFileSync(trace, 'utf8'));
  assert.is(code, 0);
  assert.is(results(stdout)[0].hitBlocks, 1080);
});

test('without a trace it says that the workload is generated', async () => {
  const { code, stdout } = await run(['replay', '--sessions', '12', '--turns', '3', '--seed', '5']);
  assert.is(code, 0);
  assert.match(stdout, /^generated multi-turn workload, 12 sessions, seed 5/);
  assert.match(stdout, /no limit/);
});

test('--plot writes a drawing with a line for each policy', async () => {
  const file = join(folder, 'plot.svg');
  const { code, stderr } = await run([
    'replay',
    trace,
    '--policy',
    'lru,lfu',
    '--blocks',
    '10,1000,100,inf',
    '--plot',
    file,
  ]);
  assert.is(code, 0, stderr);
  const svg = readFileSync(file, 'utf8');
  assert.match(svg, /^<svg [\s\S]*<\/svg>\n$/);
  assert.is(svg.match(/<polyline/g)?.length, 2);
  const [first, middle, last, ...rest] = [...svg.matchAll(/<circle [^>]*cx="([\d.]+)"/g)].map(([, x]) => Number(x));
  assert.ok(first < last && Math.abs(middle - (first + last) / 2) <= 0.1, 'a logarithmic axis');
  assert.is(rest.length, 3);
  assert.match(svg, /no limit: 82\.2 %/);
  assert.match(svg, />lfu<\/text>/);
});

test('a title cannot break out of the drawing', async () => {
  const odd = join(folder, 'a<b>&"c".jsonl');
  writeFileSync(odd, readFileSync(trace));
  const file = join(folder, 'odd.svg');
  await run(['replay', odd, '--policy', 'lru', '--blocks', '10', '--plot', file]);
  assert.match(readFileSync(file, 'utf8'), /Prefix-cache hit rate: a&#60;b&#62;&#38;&#34;c&#34;\.jsonl/);
});

const REFUSED: [args: string[], message: RegExp][] = [
  [
    ['no-such-file.jsonl'],
    /FILE must be a readable trace \(ENOENT\), got "no-such-file.jsonl" \[ERR_INVALID_ARGUMENT\]/,
  ],
  [[trace, '--policy', 'arc'], /--policy must be one of "lru".*got "arc"/],
  [[trace, '--blocks', '10,0'], /--blocks must be .*got "0"/],
  [[trace, '--blocks', 'many'], /--blocks must be .*got "many"/],
  [[trace, '--sessions', '3'], /--sessions must be left out when a trace is named, got 3/],
  [['--turns', 'x'], /--turns must be an integer from 1 to 10000, got "x"/],
  [['--turns', '0'], /--turns must be an integer from 1 .*got "0"/],
  [['--plot', 'trace.jsonl'], /--plot must be a file name that ends in \.svg, got "trace\.jsonl"/],
  [[trace, '--plot', join(folder, 'no', 'such', 'folder.svg')], /--plot must be a file that can be written \(ENOENT\)/],
];

for (const [args, message] of REFUSED) {
  test(`refused: replay ${args.slice(-2).join(' ')}`, async () => {
    const { code, stderr } = await run(['replay', ...args]);
    assert.is(code, 1);
    assert.match(stderr, message);
  });
}

test('a broken trace ends with its line and exit code 1', async () => {
  const { code, stdout, stderr } = await run(['replay', '-', '--json'], '{"timestamp":0}\n');
  assert.is(code, 1);
  assert.is(stdout, '');
  assert.match(stderr, /trace line 1: input_length is missing \[ERR_TRACE\]/);
});

test('what a trace holds never reaches the terminal as a command', async () => {
  const { stderr } = await run(['replay', '-'], '\u001b]0;title\u0007\u009b2J\n');
  assert.match(stderr, /^mooncake-ts: trace line 1: not JSON [ -~]*\n$/);
});

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`${signal} stops a replay between two lines`, async () => {
    const child = spawn(process.execPath, [main, 'replay', '--sessions', '5000', '--json'], { timeout: 120_000 });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => {
      if (stdout === '') child.kill(signal);
      stdout += text;
    });
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    assert.equal(await once(child, 'close'), [code, null]);
    assert.is(stderr, `stopped by ${signal}\n`);
    assert.ok(stdout.endsWith('}\n'));
    assert.ok(stdout.split('\n').length < 30);
  });

  test(`${signal} stops a wait for standard input`, async () => {
    const child = spawn(process.execPath, [main, 'replay', '-'], { timeout: 120_000 });
    // More than a pipe holds: once it is all taken, the command is known to be waiting for the rest.
    const line = '{"timestamp":0,"input_length":512,"output_length":1,"hash_ids":[0]}\n';
    await new Promise((resolve) => child.stdin.write(line.repeat(50_000), resolve));
    child.kill(signal);
    assert.equal(await once(child, 'exit'), [code, null]);
  });
}

test.run();
