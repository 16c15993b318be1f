// `mooncake-ts up`: the demo proves itself; the cluster that stays up answers over HTTP, outlives an instance, and stops cleanly.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';

const SMALL = ['--sessions', '3', '--turns', '3', '--output', '8', '--system', '96', '--input', '32'];

async function demo(...args: string[]) {
  const { code, stdout, stderr } = await run(['up', '--demo', '--json', ...SMALL, ...args]);
  assert.is(stderr, '');
  assert.is(code, 0);
  return JSON.parse(stdout);
}

function checkFigures(figures: Record<string, number>) {
  assert.is(figures.requests, 9);
  assert.is(figures.verified, 9);
  assert.is(figures.retries, 0);
  assert.is(figures.localTokens + figures.storeTokens + figures.computedTokens, figures.promptTokens);
  // The decode engines compute no prompt but the last token of each, which every engine computes itself.
  const found = figures.handedTokens + figures.decodeOtherTokens;
  assert.is(found, figures.promptTokens - figures.requests);
  assert.ok(figures.handedTokens > 0 && figures.handedBlocks > 0 && figures.handedBytes > 0);
  assert.ok(figures.savedBlocks > 0 && figures.savedBytes > 0);
}

test('the demo: every completion is that of the run without cache', async () => {
  checkFigures(await demo());
});

test('round robin: what one prefill engine computed the other loads from the store', async () => {
  const figures = await demo('--scheduling', 'round_robin', '--concurrency', '1');
  checkFigures(figures);
  assert.ok(figures.storeTokens > 0 && figures.loadedBlocks > 0);
});

test('engines in processes of their own', async () => {
  checkFigures(await demo('--processes'));
});

test('layer by layer, while the prefill computes', async () => {
  for (const where of [[], ['--processes']]) {
    const figures = await demo('--handover', 'layers', ...where);
    checkFigures(figures);
    assert.ok(figures.earlyBytes > 0 && figures.earlyBytes < figures.handedBytes);
  }
});

test('without prefill engines the decode engines do it all', async () => {
  const figures = await demo('--prefill', '0');
  assert.is(figures.verified, 9);
  assert.is(figures.handedTokens, 0);
  assert.ok(figures.localTokens + figures.storeTokens > 0);
});

test('a conversation that would not fit is refused before it starts', async () => {
  const { code, stdout, stderr } = await run(['up', '--demo', '--blocks', '16']);
  assert.is(code, 1);
  assert.is(stdout, '');
  const [, needed, blocks] = /grow to (\d+) tokens, .* holds 255; take --blocks (\d+)/.exec(stderr) ?? [];
  assert.ok(Number(needed) > 255, stderr);
  assert.is(Number(blocks), Math.ceil((Number(needed) + 1) / 16));
  const { stderr: never } = await run(['up', '--demo', '--output', '1024', '--turns', '10']);
  assert.match(never, /take fewer --turns/);
});

test('caches that hold one conversation, and a store that holds less than all: the answers are right', async () => {
  // BOS, 97 of the system prompt, 3 turns of 49, and between and after them answers of 8: 271 tokens at most.
  checkFigures(await demo('--blocks', '17', '--store-size', '1MB', '--concurrency', '4'));
});

test('a store too small for anything is refused by name', async () => {
  const { code, stderr } = await run(['up', '--demo', '--store-size', '1']);
  assert.is(code, 1);
  assert.match(stderr, /--store-size must be at least 1MB/);
});

test('a bad number is refused by name', async () => {
  const { code, stderr } = await run(['up', '--demo', '--turns', 'many']);
  assert.is(code, 1);
  assert.match(stderr, /--turns must be an integer from 1 to 64, got "many" \[ERR_INVALID_ARGUMENT\]/);
});

interface Up {
  child: ChildProcess;
  url: string;
  store: string;
  pids: Record<string, number>;
}

/** A cluster in the background; what it says on standard error is not this test's. */
async function up(...args: string[]): Promise<Up> {
  const child = spawn(process.execPath, [main, 'up', '--json', '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [line] = await once(child.stdout as NodeJS.ReadableStream, 'data');
  return { child, ...JSON.parse(line) };
}

async function complete(url: string, body: unknown) {
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', body: JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
}

async function stop({ child }: Up) {
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  const [code] = await exit;
  assert.is(code, 143);
}

const PROMPT = 'A prompt that is long enough to fill some blocks of sixteen tokens, and a little more. ';

test('the cluster that stays up completes, streams, refuses and stops', async () => {
  const cluster = await up();
  try {
    const first = await complete(cluster.url, { prompt: PROMPT, max_tokens: 8 });
    assert.is(first.status, 200);
    assert.ok(first.body.choices[0].text.length > 0);
    const again = await complete(cluster.url, { prompt: PROMPT, max_tokens: 8 });
    assert.is(again.body.choices[0].text, first.body.choices[0].text);
    assert.ok(again.body.usage.prompt_tokens_details.cached_tokens >= 64);

    const streamed = await fetch(`${cluster.url}/v1/completions`, {
      method: 'POST',
      body: JSON.stringify({ prompt: PROMPT, max_tokens: 8, stream: true }),
    });
    const events = (await streamed.text()).split('\n\n').filter(Boolean);
    assert.is(events.at(-1), 'data: [DONE]');
    const text = events.slice(0, -1).map((event) => JSON.parse(event.slice('data: '.length)).choices[0].text);
    assert.is(text.join(''), first.body.choices[0].text);

    for (const [body, name] of [
      [{ prompt: '' }, 'prompt'],
      [{ prompt: PROMPT, max_tokens: 0 }, 'max_tokens'],
      [{ prompt: 'x'.repeat(10_000) }, 'max_tokens'],
      [{ prompt: PROMPT, max_tokens: 1e9 }, 'max_tokens'],
      [[], 'body'],
    ] as const) {
      const refused = await complete(cluster.url, body);
      assert.is(refused.status, 400);
      assert.match(refused.body.error.message, name);
    }
    assert.is((await fetch(`${cluster.url}/nowhere`)).status, 404);
    const status = (await (await fetch(`${cluster.url}/status`)).json()) as { instances: unknown[] };
    assert.is(status.instances.length, 4);
  } finally {
    await stop(cluster);
  }
});

for (const [signal, handover] of [
  ['SIGKILL', 'pull'],
  ['SIGSTOP', 'pull'],
  ['SIGKILL', 'layers'],
  ['SIGSTOP', 'layers'],
] as const) {
  test(`an instance that gets ${signal} costs no answer, hand-over ${handover}`, async () => {
    const cluster = await up('--processes', '--handover', handover);
    try {
      const before = await complete(cluster.url, { prompt: PROMPT, max_tokens: 8 });
      assert.is(before.status, 200);
      process.kill(cluster.pids['prefill-0'], signal);
      process.kill(cluster.pids['decode-1'], signal);
      const after = await Promise.all(
        Array.from({ length: 4 }, () => complete(cluster.url, { prompt: PROMPT, max_tokens: 8 })),
      );
      for (const { status, body } of after) {
        assert.is(status, 200);
        assert.is(body.choices[0].text, before.body.choices[0].text);
      }
      const status = (await (await fetch(`${cluster.url}/status`)).json()) as { instances: { alive: boolean }[] };
      assert.equal(
        status.instances.map(({ alive }) => alive),
        [false, true, true, false],
      );
    } finally {
      await stop(cluster);
    }
  });
}

test('a cluster that nobody could answer for ends', async () => {
  const cluster = await up('--processes', '--prefill', '1', '--decode', '1');
  const exit = once(cluster.child, 'exit');
  process.kill(cluster.pids['decode-0'], 'SIGKILL');
  assert.is((await exit)[0], 1);
  assert.throws(() => process.kill(cluster.pids['prefill-0'], 0), /ESRCH/);
});

/** Process ids of a process's children. */
function childrenOf(pid: number): number[] {
  const all = execFileSync('ps', ['-A', '-o', 'ppid=,pid='], { encoding: 'utf8' }).trim().split('\n');
  return all
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([ppid, child]) => (ppid === pid ? child : []));
}

/** Moments of a start, by the number of engines' processes that there are, and milliseconds after that. */
const MOMENTS = [
  [1, 0],
  [4, 0],
  [4, 300],
];
for (const [processes, later] of MOMENTS) {
  test(`Ctrl-C while the processes start ends all of them: ${processes} are there, ${later} ms ago`, async () => {
    // A group of its own: a terminal sends the signal to every process of it.
    const child = spawn(process.execPath, [main, 'up', '--processes', '--port', '0'], {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    const exit = once(child, 'close');
    const pid = child.pid as number;
    let children: number[] = [];
    while (children.length < processes) children = childrenOf(pid);
    await new Promise((resolve) => setTimeout(resolve, later));
    process.kill(-pid, 'SIGINT');
    assert.equal(await exit, [130, null], said);
    for (const one of children) assert.throws(() => process.kill(one, 0), /ESRCH/);
  });
}

test('a port that is taken is said so', async () => {
  const cluster = await up();
  try {
    const { code, stderr } = await run(['up', '--port', new URL(cluster.url).port]);
    assert.is(code, 1);
    assert.match(stderr, /cannot listen on 127\.0\.0\.1:\d+: the port is in use/);
  } finally {
    await stop(cluster);
  }
});

test.run();
