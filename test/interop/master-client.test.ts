/** The stock Python client, unchanged, on both masters: the same scenario must give the same answers. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort, type Kind, Master } from './masters.js';

const client = process.env.STORE_CLIENT ?? fileURLToPath(new URL('./store_client.py', import.meta.url));
const FLAGS = ['--default_kv_lease_ttl=2000'];
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

type Line = [step: string, value: unknown];

function start(mode: 'scenario' | 'load' | 'keep', master: Master, metadata: string, name: number) {
  const place = `127.0.0.1:${master.port}`;
  const child = spawn(process.env.MOONCAKE_PYTHON!, [client, mode, place, metadata, `${name}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 300_000,
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    log = (log + text).slice(-3000);
  });
  const lines: Line[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return { child, lines, ended, log: () => log };
}

async function scenario(kind: Kind, flags: readonly string[], metadata: string): Promise<Line[]> {
  const master = await Master.start(kind, [...FLAGS, ...flags]);
  try {
    const run = start('scenario', master, metadata, await freePort());
    await run.ended;
    assert.is(
      run.lines.at(-1)?.[0],
      'closed',
      `${kind}: ${JSON.stringify(run.lines.at(-1))}\n${run.log()}\n${master.log}`,
    );
    return run.lines;
  } finally {
    await master.end();
  }
}

for (const [how, http] of [
  ['peer to peer', false],
  ["with the master's own metadata server", true],
] as const) {
  test(`what the stock client does on the stock master it does on ours, ${how}`, async () => {
    const port = await freePort();
    const flags = http
      ? [
          '--enable_http_metadata_server=true',
          '--http_metadata_server_host=127.0.0.1',
          `--http_metadata_server_port=${port}`,
        ]
      : [];
    const metadata = http ? `http://127.0.0.1:${port}/metadata` : 'P2PHANDSHAKE';
    const stock = await scenario('stock', flags, metadata);
    const ours = await scenario('ours', flags, metadata);
    assert.ok(stock.length > 35, `${stock.length} steps`);
    const answers = new Map(stock);
    for (const [step, value] of ours) assert.equal(value, answers.get(step), step);
    assert.equal(
      ours.map(([step]) => step),
      stock.map(([step]) => step),
    );
  });
}

test('a master that is killed under load and started again gets its clients back', async () => {
  const master = await Master.start('ours', FLAGS);
  const run = start('load', master, 'P2PHANDSHAKE', await freePort());
  const rounds = () => run.lines.filter(([step]) => step === 'round').map(([, value]) => value as [number, string]);
  const goodRounds = async (more: number) => {
    const wanted = rounds().filter(([put, got]) => put === 0 && got === 'right').length + more;
    const deadline = Date.now() + 60_000;
    while (rounds().filter(([put, got]) => put === 0 && got === 'right').length < wanted) {
      assert.ok(Date.now() < deadline, `no good rounds: ${JSON.stringify(run.lines.slice(-5))}\n${run.log()}`);
      await wait(50);
    }
  };
  try {
    await goodRounds(20);
    for (let i = 0; i < 2; i++) {
      await master.end('SIGKILL');
      await wait(300);
      await master.restart();
      await goodRounds(20);
    }
    assert.equal(
      rounds().filter(([, got]) => got === 'wrong'),
      [],
    );
    assert.match(master.log, /was lent before this master began/);
  } finally {
    run.child.kill('SIGKILL');
    await run.ended;
    await master.end();
  }
});

test('with a data directory, a stock client keeps its objects over a kill of the master', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'master-data-'));
  const master = await Master.start('ours', [...FLAGS, `--data-dir=${folder}`]);
  const run = start('keep', master, 'P2PHANDSHAKE', await freePort());
  const looks = () => run.lines.filter(([step]) => step === 'seen').map(([, value]) => value as number[]);
  const allRight = async () => {
    const from = looks().length;
    const deadline = Date.now() + 60_000;
    while (
      !looks()
        .slice(from)
        .some(([right]) => right === 100)
    ) {
      assert.ok(Date.now() < deadline, `${JSON.stringify(run.lines.slice(-3))}\n${run.log()}\n${master.log}`);
      await wait(50);
    }
  };
  try {
    await allRight();
    assert.equal(
      run.lines.find(([step]) => step === 'kept'),
      ['kept', 100],
    );
    for (const signal of ['SIGKILL', 'SIGKILL', 'SIGTERM'] as const) {
      await master.end(signal);
      await master.restart();
      await allRight();
    }
    for (const [, , wrong] of looks()) assert.is(wrong, 0);
    assert.match(master.log, /restored 100 objects in \d+ segments/);
    assert.match(master.log, /is back, with what it held before the restart/);
  } finally {
    run.child.kill('SIGKILL');
    await run.ended;
    await master.end();
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
