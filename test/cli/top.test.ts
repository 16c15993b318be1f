// `mooncake-ts top`: what it says of masters, of their ends and new starts, and how it ends itself.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';
import { skip } from '../support/skip.js';

const ID = '1'.repeat(32);
const MIB = 2 ** 20;
const segment = {
  id: ID,
  name: 'n\u001b[31m',
  base: 2n ** 32n,
  size: 2n ** 20n,
  endpoint: 'e:1',
  protocol: 'tcp',
  hostId: '',
};

interface View {
  master: string;
  restarted: boolean;
  clients: number;
  objects: number;
  usedBytes: number;
  capacityBytes: number;
  hitRate: number | null;
  totalHitRate: number | null;
  totalMisses: Record<string, number>;
  calls: { method: string; perSecond: number; failuresPerSecond: number; p50Ms: number | null; p99Ms: number | null }[];
  segments: { name: string; usedBytes: number; change: number; status: string }[];
  error?: string;
}

async function withMaster(work: (master: MooncakeMaster, client: RpcClient) => Promise<void>): Promise<void> {
  const master = await MooncakeMaster.listen({ port: 0, adminPort: 0 });
  const client = await RpcClient.connect('127.0.0.1', master.ports.rpc);
  try {
    await work(master, client);
  } finally {
    client.close();
    await master.close();
  }
}

/** `top` in a process of its own, with each line that it prints. */
function watch(...args: string[]): { child: ChildProcess; next(): Promise<View>; end(): Promise<number | null> } {
  const child = spawn(process.execPath, [main, 'top', '--json', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
  });
  const exited = once(child, 'exit');
  const next = async (): Promise<View> => {
    while (lines.length === 0) {
      const [code] = await Promise.race([once(child.stdout!, 'data'), exited]);
      if (child.exitCode !== null && lines.length === 0) throw new Error(`top ended with ${code}`);
    }
    return JSON.parse(lines.shift()!);
  };
  const end = async () => {
    child.kill('SIGINT');
    return (await exited)[0] as number | null;
  };
  return { child, next, end };
}

/** The first view or message of which `wanted` holds. */
async function until(top: { next(): Promise<View> }, wanted: (view: View) => boolean): Promise<View> {
  for (;;) {
    const view = await top.next();
    if (wanted(view)) return view;
  }
}

test('a master of ours: levels, rates, times by method, and segments', () =>
  withMaster(async (master, client) => {
    const top = watch(`127.0.0.1:${master.ports.admin}`, '--interval', '0.2');
    await until(top, ({ clients }) => clients === 0);
    await client.call(METHODS.MountSegment, { segment, client: ID });
    await client.call(METHODS.ReMountSegment, { segments: [segment], client: ID });
    const mounted = await until(top, ({ clients }) => clients === 1);
    assert.equal([mounted.capacityBytes, mounted.usedBytes, mounted.objects], [MIB, 0, 0]);
    assert.equal([mounted.segments[0].name, mounted.segments[0].status], [segment.name, 'OK']);
    const asking = setInterval(() => {
      client.call(METHODS.ExistKey, { key: Buffer.from('absent'), tenant: 'default' }).catch(() => {});
    }, 10);
    const missing = await until(top, ({ hitRate }) => hitRate !== null);
    clearInterval(asking);
    assert.is(missing.hitRate, 0);
    assert.ok(missing.totalMisses.absent > 0);
    assert.is(missing.calls[0].method, 'ExistKey');
    assert.ok(missing.calls[0].perSecond > 0 && missing.calls[0].failuresPerSecond === 0);
    const { p50Ms, p99Ms } = missing.calls[0];
    assert.ok(p50Ms !== null && p99Ms !== null && p50Ms > 0 && p99Ms >= p50Ms);
    assert.is(await top.end(), 130);
  }));

/** A stock master's pages, as far as `top` reads them. */
async function stock(counts: () => Record<string, number>): Promise<{ server: Server; host: string }> {
  const server = createServer((request, response) => {
    const metrics = () =>
      Object.entries(counts())
        .map(([name, value]) => `# TYPE ${name} counter\n${name} ${value}\n`)
        .join('');
    const segments = [
      {
        segment_name: 'h:1',
        segment_id: 'a',
        allocator_used_bytes: 3 * MIB,
        allocator_capacity_bytes: 4 * MIB,
        status: 'OK',
      },
    ];
    response.end(request.url === '/metrics' ? metrics() : JSON.stringify({ total_segments: 1, segments }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

test('a stock master: calls by its own names, and counters that go back are a new start', async () => {
  let looks = 0;
  let counts = {
    master_ping_requests_total: 1000,
    master_ping_failures_total: 0,
    total_get_nums_: 80,
    valid_get_nums_: 60,
  };
  const { server, host } = await stock(() => {
    if (looks++ > 0) {
      counts.master_ping_requests_total += 10;
      counts.total_get_nums_ += 4;
      counts.valid_get_nums_ += 1;
    }
    return { master_active_clients: 3, master_key_count: 7, master_put_start_requests_total: 0, ...counts };
  });
  const top = watch(host, '--interval', '0.1');
  const first = await top.next();
  assert.equal([first.clients, first.objects, first.restarted], [3, 7, false]);
  assert.equal([first.hitRate, first.totalHitRate], [0.25, 61 / 84]);
  assert.equal(
    first.calls.map(({ method }) => method),
    ['ping'],
    'what was never called is left out',
  );
  assert.equal([first.calls[0].p50Ms, first.calls[0].p99Ms], [null, null]);
  assert.ok(first.calls[0].perSecond > 0);
  counts = { master_ping_requests_total: 0, master_ping_failures_total: 0, total_get_nums_: 0, valid_get_nums_: 0 };
  const again = await until(top, ({ restarted }) => restarted);
  assert.ok(again.calls[0].perSecond >= 0 && again.totalHitRate !== null);
  assert.is((await top.next()).restarted, false);
  assert.is(await top.end(), 130);
  server.closeAllConnections();
  server.close();
});

test('a master that goes is said, and one that comes back is watched again', async () => {
  const first = await MooncakeMaster.listen({ port: 0, adminPort: 0 });
  const { admin } = first.ports;
  const top = watch(`http://127.0.0.1:${admin}`, '--interval', '0.1');
  assert.is((await top.next()).restarted, false);
  await first.close();
  const gone = await until(top, ({ error }) => error !== undefined);
  assert.match(gone.error!, new RegExp(`peer http://127\\.0\\.0\\.1:${admin}/.*trying again`));
  const second = await MooncakeMaster.listen({ port: 0, adminPort: admin });
  const back = await until(top, ({ error }) => error === undefined);
  assert.is(back.clients, 0);
  assert.is(await top.end(), 130);
  await second.close();
});

test('--once, with and without a terminal to write to, and what it cannot do', () =>
  withMaster(async (master, client) => {
    await client.call(METHODS.MountSegment, { segment, client: ID });
    const place = `127.0.0.1:${master.ports.admin}`;
    const text = await run(['top', place, '--once', '--interval', '0.1']);
    assert.is(text.code, 0);
    assert.match(text.stdout, new RegExp(`^mooncake master ${place.replaceAll('.', '\\.')}\n`));
    assert.match(text.stdout, /\nmemory {3}\[\.{20}\] {3}0\.0% 0 B of 1\.0 MiB\n/);
    assert.match(
      text.stdout,
      /\nn\\u001b\[31m {20,}\[\.{20}\] {3}0\.0% {3}1\.0 MiB\n/,
      'no control characters of strangers',
    );
    const json = await run(['top', place, '--once', '--json', '--interval', '0.1']);
    assert.is(json.stdout.trim().split('\n').length, 1);
    assert.is(JSON.parse(json.stdout).segments[0].name, segment.name);
    const absent = await run(['top', '127.0.0.1:1', '--once']);
    assert.is(absent.code, 1);
    assert.match(absent.stderr, /peer http:\/\/127\.0\.0\.1:1\/\w+: GET .*ECONNREFUSED.*--metrics_port.*ERR_PEER/);
    assert.match((await run(['top', '--interval', '0'])).stderr, /--interval must be seconds, from 0\.1/);
    assert.match((await run(['top', 'a b'])).stderr, /master must be "host:port"/);
    const { server, host } = await stock(() => ({}));
    server.removeAllListeners('request').on('request', (_, response) => response.writeHead(404).end());
    assert.match((await run(['top', host, '--once'])).stderr, /GET \/\w+ was answered with 404/);
    server.close();
  }));

const onTerminal = 'on a terminal it takes the other screen, fits into it, and gives it back';
if (spawnSync('script', ['--version']).status === 0) {
  test(onTerminal, () =>
    withMaster(async (master) => {
      const command = `stty cols 40 rows 8; exec ${process.execPath} ${main} top 127.0.0.1:${master.ports.admin} --interval 0.1`;
      const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      const exited = once(child, 'exit');
      while (!text.includes('segments 0')) await once(child.stdout, 'data');
      // Ctrl-C.
      child.stdin.write('\x03');
      assert.is((await exited)[0], 130);
      assert.ok(text.startsWith('\x1b[?1049h\x1b[?25l'), 'the other screen, and no cursor');
      assert.ok(text.includes('\x1b[?25h\x1b[?1049l'), 'both are given back');
      const end = text.lastIndexOf('\x1b[K\x1b[J');
      const lines = text.slice(text.lastIndexOf('\x1b[H', end) + 3, end).split('\x1b[K\r\n');
      assert.ok(lines.length <= 8 && lines.every((line) => line.length <= 40), JSON.stringify(lines));
    }),
  );
} else {
  skip(test, onTerminal, 'no script', 'apt-get install bsdutils');
}

test.run();
