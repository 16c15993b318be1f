// `mooncake-ts bench transfer`: its figures as lines, table and drawing, what cannot be measured with the reason, two sides that
// are started apart, and an end that leaves nothing behind.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';

const SMALL = ['bench', 'transfer', '--total', '2MiB', '--rounds', '1', '--sizes', '4KiB,1MiB'];
const OFF = { MOONCAKE_NATIVE: 'off' };

interface Line {
  name: string;
  value: number | null;
  unit: string | null;
  baseline: number | null;
  ratio: number | null;
  skipped?: string;
  verify?: string;
}

async function lines(args: string[], env: Record<string, string> = {}): Promise<Line[]> {
  const { code, stdout, stderr } = await run([...SMALL, '--json', ...args], '', env);
  assert.is(code, 0, stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

test('every figure is a line with its unit, and those of throughput stand beside memcpy', async () => {
  const found = await lines(['--transports', 'local,typescript']);
  const names = found.map(({ name }) => name);
  const sizes = ['4KiB', '1MiB'];
  const throughput = ['local/copy', 'typescript/read', 'typescript/write'].flatMap((way) =>
    sizes.map((size) => `transfer/${way}/${size}/no-verify`),
  );
  const usable = names.includes('transfer/local/copy/64B/per-descriptor');
  for (const name of throughput) {
    assert.is(names.includes(name), usable || name.includes('typescript'), `${name} among ${names.join(' ')}`);
  }
  const memcpy = found.find(({ name }) => name === 'transfer/memcpy')!;
  assert.ok(memcpy.value! > 0 && memcpy.unit === 'GB/s');
  for (const { name, value, unit, baseline, ratio } of found.filter(({ name }) => throughput.includes(name))) {
    assert.ok(value! > 0 && unit === 'GB/s', name);
    assert.is(baseline, memcpy.value);
    assert.ok(Math.abs(ratio! - value! / memcpy.value!) < 1e-3 * ratio!);
  }
  const single = found.filter(({ name }) => name.startsWith('transfer/typescript/read/4KiB/one-at-a-time/'));
  assert.equal(
    single.map(({ name, unit }) => [name.split('/').at(-1), unit]),
    ['p50', 'p90', 'p99'].map((percentile) => [percentile, 'us']),
  );
  assert.ok(single[0].value! <= single[1].value! && single[1].value! <= single[2].value!);
});

test('what needs the accelerator is a line with the reason where there is none', async () => {
  const found = await lines(['--transports', 'shm,typescript', '--verify', 'full'], OFF);
  const shm = found.filter(({ name }) => name.startsWith('transfer/shm'));
  assert.is(shm.length, 1);
  assert.is(shm[0].value, null);
  assert.match(shm[0].skipped!, /MOONCAKE_NATIVE=off/);
  assert.ok(found.some(({ name, value }) => name === 'transfer/typescript/read/1MiB/no-verify' && value! > 0));
});

test('verified and not, where the accelerator can', async () => {
  const found = await lines(['--transports', 'shm,tcp,process_vm,mooncake-tcp']);
  const skipped = found.find(({ name }) => name === 'transfer/tcp')?.skipped;
  if (skipped !== undefined) return assert.match(skipped, /mooncake\.node|accelerator|not built|for Linux/);
  for (const name of ['shm/read', 'shm/write', 'tcp/read', 'tcp/write', 'process_vm/read', 'process_vm/write']) {
    for (const verify of ['full', 'off']) {
      const line = found.find((one) => one.name === `transfer/${name}/1MiB/verify-${verify}`);
      assert.ok(line?.value !== null && line!.value! > 0, `${name} ${verify}`);
    }
  }
  assert.ok(found.some(({ name, value }) => name === 'transfer/mooncake-tcp/write/4KiB/no-verify' && value! > 0));
});

test('a table for people, and a drawing', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-transfer-'));
  try {
    const plot = join(folder, 'rates.svg');
    const { code, stdout, stderr } = await run([...SMALL, '--transports', 'typescript', '--plot', plot]);
    assert.is(code, 0, stderr);
    assert.match(stdout, /^memcpy of 2 MiB on one core: \d+(\.\d+)? GB\/s\n/);
    assert.match(stdout, /GB\/s +verify +4 KiB +1 MiB\n/);
    assert.match(stdout, /\ntypescript +read +- +\d+\.\d+ +\d+\.\d+\n +write +- +\d+\.\d+ +\d+\.\d+\n/);
    assert.match(stdout, /4 KiB, one at a time, us +median +90 % +99 %\ntypescript( +\d+(\.\d)?){3}\n/);
    const svg = readFileSync(plot, 'utf8');
    assert.match(svg, /^<svg [^>]*viewBox="0 0 \d+ \d+"/);
    assert.is(svg.match(/<polyline /g)?.length, 2);
    assert.match(svg, />typescript<\/text>/);
    assert.match(svg, /prefers-color-scheme: dark/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('peers that are not there say how to get them', async () => {
  const env = { NIXL_PYTHON: '', MOONCAKE_PYTHON: '/nowhere/python', IPERF3: '/nowhere/iperf3' };
  const found = await lines(['--transports', 'typescript', '--peers', 'nixl-tcp,stock,iperf3'], env);
  const why = (name: string) => found.find((line) => line.name === `transfer/${name}`)?.skipped ?? '';
  assert.match(why('nixl-tcp'), /NIXL_PYTHON .*pip install --no-deps nixl-cu12/);
  assert.match(why('stock'), /ENOENT/);
  assert.match(why('iperf3'), /IPERF3/);
});

test('bad values are refused by flag', async () => {
  for (const [args, message] of [
    [['--sizes', '4KiB,x'], /--sizes must be .*got "x"/],
    [['--sizes', '4MiB', '--total', '1MiB'], /--sizes must be at most --total, 1 MiB, got "4 MiB"/],
    [['--total', '1KiB'], /--total must be from 1 MiB .*got "1KiB"/],
    [['--transports', 'tcp,rdma'], /--transports must be one of .*got "rdma"/],
    [['--verify', 'some'], /--verify must be one of "full", "off", got "some"/],
    [['--peers', 'scp'], /--peers must be one of .*got "scp"/],
    [['--rounds', '0'], /--rounds must be an integer from 1 .*got "0"/],
    [['--timeout', 'soon'], /--timeout must be .*got "soon"/],
    [['--plot', 'a.png'], /--plot must be a file name that ends in \.svg, got "a\.png"/],
    [['--connect', 'nowhere'], /--connect must be .*got "nowhere"/],
  ] as const) {
    const { code, stdout, stderr } = await run(['bench', 'transfer', ...args]);
    assert.is(code, 1, args.join(' '));
    assert.is(stdout, '');
    assert.match(stderr, message);
  }
});

test('a place where nobody listens: said, with what to start there, and exit code 1', async () => {
  const args = ['--connect', '127.0.0.1:1', '--total', '1MiB', '--sizes', '64KiB', '--rounds', '1'];
  const { code, stderr } = await run(['bench', 'transfer', ...args, '--transports', 'tcp,typescript']);
  assert.is(code, 1);
  assert.match(stderr, /nothing could be measured: .*bench transfer --listen 127\.0\.0\.1:1/);
});

/** The command, until it says what `pattern` matches on standard error. */
async function started(args: string[], pattern: RegExp): Promise<ChildProcess> {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface({ input: child.stderr! })) if (pattern.test(line)) break;
  return child;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

test('two sides that are started apart', async () => {
  const place = `127.0.0.1:${await freePort()}`;
  const listener = await started(['bench', 'transfer', '--listen', place, '--total', '2MiB'], /^listening on .* 2 MiB/);
  try {
    const found = await lines(['--connect', place]);
    const ways = new Set(found.map(({ name }) => name.split('/')[1]));
    assert.ok(!ways.has('shm') && !ways.has('local') && ways.has('tcp') && ways.has('typescript'));
    assert.ok(found.some(({ name, value }) => name === 'transfer/typescript/write/1MiB/no-verify' && value! > 0));
    // Without --sizes, those that fit.
    const other = await run(['bench', 'transfer', '--connect', place, '--total', '1MiB', '--rounds', '1', '--json']);
    assert.match(other.stdout, /the target moves 2097152 bytes: give that as --total/);
  } finally {
    listener.kill('SIGINT');
  }
  const [code] = await once(listener, 'exit');
  assert.is(code, 130);
});

test('interrupted, it ends at once and leaves no process', async () => {
  const args = ['bench', 'transfer', '--transports', 'typescript', '--total', '64MiB', '--rounds', '1000'];
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const below = (pid: number): number[] => {
    const all = execFileSync('ps', ['-eo', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n');
    const pairs = all.map((line) => line.trim().split(/\s+/).map(Number));
    const next = pairs.filter(([, parent]) => parent === pid).map(([found]) => found);
    return [...next, ...next.flatMap(below)];
  };
  let processes: number[] = [];
  for (let i = 0; i < 600 && processes.length < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    processes = below(child.pid!);
  }
  assert.is(processes.length, 2, 'an initiator and its target');
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  assert.is(code, 143);
  const alive = (pid: number) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  for (let i = 0; i < 100 && processes.some(alive); i++) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(processes.filter(alive), []);
});

test.run();
