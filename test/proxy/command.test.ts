// `mooncake-ts proxy`: the flags of today and of older proxies, a V0 configuration, and a clean end.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';
import { CommandProcess } from '../support/node-process.js';
import { complete, type Engine, expected, startEngines } from './engines.js';

let engines: Record<string, Engine>;
test.before(async () => {
  engines = await startEngines('p1', 'p2', 'd1', 'd2');
});
test.after(async () => {
  await Promise.all(Object.values(engines).map((one) => one.kill()));
});

interface Status {
  prefill_nodes: string[];
  decode_nodes: string[];
  scheduling: string;
  instances: { instance: string; state: string; bootstrap?: string; handover?: string }[];
}
async function start(args: string[], env: Record<string, string> = {}) {
  const command = await CommandProcess.start(['proxy', '--port', '0', '--json', ...args], env);
  const { url } = JSON.parse(command.lines[0]) as { url: string };
  const status = (await (await fetch(`${url}/status`)).json()) as Status;
  return { command, url, status };
}
const address = ({ port }: Engine) => `127.0.0.1:${port}`;

test('--prefill URL port and --decode URL, several times and several at once', async () => {
  const { p1, p2, d1, d2 } = engines;
  const first = await start([
    ...['--prefill', p1.url, String(p1.port), '--prefill', p2.url, String(p2.port)],
    ...['--decode', d1.url, '-d', d2.url, '--scheduling', 'round_robin', '--model', 'tiny'],
  ]);
  assert.equal(first.status.prefill_nodes, [address(p1), address(p2)]);
  assert.equal(first.status.decode_nodes, [address(d1), address(d2)]);
  assert.is(first.status.instances[1].bootstrap, p2.url);
  assert.is((await complete(first.url, { prompt: 'cli', max_tokens: 2, stream: true })).text, expected('cli', 2));
  assert.is((await complete(first.url, { prompt: 'cli', model: 'else' })).status, 404);
  assert.is(await first.command.end('SIGTERM'), 143);
  const second = await start(['-p', address(p1), 'none', address(p2), '-d', address(d1), address(d2)]);
  assert.equal(second.status.prefill_nodes, [address(p1), address(p2)]);
  assert.equal(second.status.decode_nodes, [address(d1), address(d2)]);
  assert.is(second.status.instances[0].handover, 'store');
  assert.is(await second.command.end('SIGINT'), 130);
});

test('the flags of the older proxy', async () => {
  const { p1, p2, d1 } = engines;
  const flags = ['--prefiller-hosts', '127.0.0.1', '127.0.0.1', '--prefiller-ports', String(p1.port), String(p2.port)];
  const both = await start([...flags, '--decoder-host', '127.0.0.1', '--decoder-port', String(d1.port)]);
  assert.equal(both.status.prefill_nodes, [address(p1), address(p2)]);
  assert.equal(both.status.decode_nodes, [address(d1)]);
  await both.command.end();
  const uneven = await run(['proxy', '--port', '0', '--prefiller-host', 'a', 'b', '--prefiller-port', '1']);
  assert.is(uneven.code, 1);
  assert.match(uneven.stderr, /--prefiller-port must be as many as --prefiller-host, 2/);
});

test('a V0 mooncake.json is translated, and the new form printed', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'proxy-')), 'mooncake.json');
  const write = (fields: object) => writeFileSync(file, JSON.stringify(fields));
  write({
    prefill_url: '127.0.0.1:13003',
    decode_url: '[::1]:13003',
    metadata_server: 'localhost:2379',
    protocol: 'tcp',
  });
  const { command, status } = await start([], { MOONCAKE_CONFIG_PATH: file });
  // Its ports are those of transfer engines.
  assert.equal(status.prefill_nodes, ['127.0.0.1:8100']);
  assert.equal(status.decode_nodes, ['[::1]:8200']);
  assert.match(command.stderr, /deprecated/);
  assert.ok(command.stderr.includes('mooncake-ts proxy --prefill http://127.0.0.1:8100 --decode http://[::1]:8200'));
  await command.end();
  write({ prefill_url: '127.0.0.1:100', decode_url: '127.0.0.1:120' });
  const near = await run(['proxy', '--port', '0', '--config', file]);
  assert.match(near.stderr, /decode_url must be 50 ports or more from prefill_url/);
  // A store's configuration is none of the proxy's.
  write({ metadata_server: 'P2PHANDSHAKE' });
  const other = await start([], { MOONCAKE_CONFIG_PATH: file });
  assert.equal(other.status.prefill_nodes, []);
  await other.command.end();
});

test('stopped while a stream runs: the stream ends first', async () => {
  const { p1, d1 } = engines;
  const { command, url } = await start(['-p', p1.url, String(p1.port), '-d', d1.url]);
  const running = complete(url, { prompt: 'ending', max_tokens: 30, stream: true, dummy: { delay: 20 } });
  while (!(await d1.log()).log.some(({ prompt }) => prompt === '"ending"'));
  const code = command.end();
  const got = await running;
  assert.is(got.done, true);
  assert.is(got.text, expected('ending', 30));
  assert.is(await code, 143);
});

test('the dashboard asks for metrics that are there', async () => {
  const { command, url } = await start(['-p', engines.p1.url, '-d', engines.d1.url]);
  await complete(url, { prompt: 'metrics', max_tokens: 1 });
  const text = await (await fetch(`${url}/metrics`)).text();
  const there = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
  for (const line of text.trimEnd().split('\n')) {
    assert.match(line, /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]+")*\})? [-+.\de]+)$/);
  }
  const dashboard = readFileSync(join(dirname(main), '../../../docs/grafana/mooncake-proxy.json'), 'utf8');
  const asked = [...dashboard.matchAll(/\b(mooncake_[a-z_]+)\{/g)].map(([, name]) => name.replace(/_bucket$/, ''));
  assert.ok(asked.length > 15);
  assert.equal([...new Set(asked.filter((name) => !there.has(name)))], []);
  await command.end();
});

test('--help, and flags that are wrong', async () => {
  const help = await run(['proxy', '--help']);
  assert.is(help.code, 0);
  for (const flag of ['--prefill', '--decode', '--scheduling', '--mode']) assert.ok(help.stdout.includes(flag));
  for (const [args, what] of [
    [['--prefill', '8998'], /--prefill must be URL \[bootstrap-port\]/],
    [['--scheduling', 'random'], /scheduling must be one of/],
    [['--retries', 'x'], /--retries must be an integer/],
    [['--timeout', '0'], /--timeout must be seconds/],
  ] as [string[], RegExp][]) {
    const bad = await run(['proxy', '--port', '0', ...args]);
    assert.is(bad.code, 1);
    assert.match(bad.stderr, what);
  }
});

test.run();
