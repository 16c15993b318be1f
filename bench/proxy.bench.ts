/**
 * What the proxy costs: dummy engines in two processes of their own answer at once, a third process is the client. Overhead is
 * the time of a request through the proxy less that of the same request straight to the two engines, one after the other, in
 * turns. The rate is that of 64 requests under way, where the machine has a core for the proxy and some for the others; what the
 * proxy's process takes of a core for each request says what rate one core would give.
 *
 *     npm run bench -- proxy [--json]
 *     MOONCAKE_BENCH_SECONDS (3), MOONCAKE_BENCH_PYTHON_PROXY: command of another proxy that is given
 *     `--prefill URL PORT --decode URL --port N` and measured in the same run
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { XpydProxy } from 'mooncake-ts';
import { missing, report } from './support/report.js';

const SECONDS = Number(process.env.MOONCAKE_BENCH_SECONDS ?? 3);
const CONCURRENCY = 64;
const [role, ...args] = process.argv.slice(2).filter((word) => !word.startsWith('--'));

if (role === 'engine') await engine();
else if (role === 'client') await client(JSON.parse(args[0]));
else await bench();

/** vLLM's API as far as the proxy uses it, with nothing behind it. */
async function engine(): Promise<void> {
  const head = { 'content-type': 'application/json' };
  const answer = JSON.stringify({ choices: [{ text: 'x', finish_reason: 'length' }] });
  const event = 'data: {"choices":[{"text":"x"}]}\n\n';
  const server = createServer((incoming, response) => {
    if (incoming.url === '/query') return response.writeHead(200, head).end('{"0":{"engine_id":"bench"}}');
    if (incoming.method === 'GET') return response.end();
    let body = '';
    incoming.setEncoding('latin1').on('data', (text) => {
      body += text;
    });
    incoming.on('end', () => {
      if (body.includes('"stream":true')) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        for (let i = 0; i < 16; i++) response.write(event);
        response.end('data: [DONE]\n\n');
      } else {
        response.writeHead(200, head).end(answer);
      }
    });
  });
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as AddressInfo).port));
  process.on('disconnect', () => process.exit());
}

interface Load {
  /** Ways that requests take in turn: the engines one after the other, or the proxy. */
  ways: number[][];
  concurrency: number;
  seconds: number;
  tokens: number;
  stream: boolean;
}

/** Runs a load; sends the times of each way in microseconds. */
async function client({ ways, concurrency, seconds, tokens, stream }: Load): Promise<void> {
  const agent = new Agent({ keepAlive: true });
  const prompt = Array.from({ length: tokens }, (_, i) => i * 7);
  const body = Buffer.from(JSON.stringify({ model: 'x', prompt, max_tokens: 16, stream }));
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  const call = (port: number) =>
    new Promise<void>((resolve, reject) => {
      const options = { agent, host: '127.0.0.1', port, method: 'POST', path: '/v1/completions', headers };
      const sent = request(options, (got) => {
        if (got.statusCode !== 200) reject(new Error(`answered with ${got.statusCode}`));
        got.on('end', resolve).resume();
      });
      sent.on('error', reject).end(body);
    });
  const run = async (seconds: number) => {
    const times: number[][] = ways.map(() => []);
    const until = performance.now() + seconds * 1000;
    const worker = async () => {
      while (performance.now() < until) {
        for (const [i, ports] of ways.entries()) {
          const start = performance.now();
          for (const port of ports) await call(port);
          times[i].push((performance.now() - start) * 1000);
        }
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    return times;
  };
  // The first second warms everybody up.
  await run(1);
  process.send!('warm');
  const times = await run(seconds);
  process.send!(times, () => process.exit());
}

async function start(...words: string[]): Promise<{ child: ChildProcess; first: unknown }> {
  const child = fork(process.argv[1], words, { execArgv: [] });
  const [first] = await once(child, 'message');
  return { child, first };
}

interface Loaded {
  /** Sorted, by way. */
  times: number[][];
  /** Processor time of this process for each request, in microseconds. */
  cpu: number;
}

async function load(options: Omit<Load, 'seconds'>): Promise<Loaded> {
  const { child } = await start('client', JSON.stringify({ seconds: SECONDS, ...options }));
  const before = process.cpuUsage();
  const [times] = (await once(child, 'message')) as [number[][]];
  const { user, system } = process.cpuUsage(before);
  const requests = times.reduce((sum, { length }) => sum + length, 0);
  return { times: times.map((each) => each.sort((a, b) => a - b)), cpu: (user + system) / requests };
}

function at(times: number[], share: number): number {
  return times[Math.min(times.length - 1, Math.floor(share * times.length))];
}

/** Overhead and rate of whatever proxy listens on `port`; the processor time where it is ours. */
async function measure(label: string, engines: number[], port: number, kind: Kind, isOurs: boolean): Promise<void> {
  const { tokens, stream } = kind;
  const turns = await load({ ways: [engines, [port]], concurrency: 1, tokens, stream });
  const [direct, through] = turns.times;
  const full = await load({ ways: [[port]], concurrency: CONCURRENCY, tokens, stream });
  const overhead = (share: number) => at(through, share) - at(direct, share);
  report({ name: `overhead p50: ${label}`, value: overhead(0.5), unit: 'us', wanted: 2000 }, 'lower');
  report({ name: `overhead p99: ${label}`, value: overhead(0.99), unit: 'us' }, 'lower');
  report({ name: `rate: ${label}`, value: full.times[0].length / SECONDS, unit: 'requests/s', wanted: 2000 }, 'higher');
  if (isOurs) report({ name: `processor time: ${label}`, value: full.cpu, unit: 'us a request', wanted: 500 }, 'lower');
}

interface Kind {
  name: string;
  tokens: number;
  stream: boolean;
}

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function bench(): Promise<void> {
  const prefill = await start('engine');
  const decode = await start('engine');
  const engines = [prefill.first as number, decode.first as number];
  const url = (port: number) => `http://127.0.0.1:${port}`;
  const given = { prefill: [{ url: url(engines[0]), bootstrapPort: engines[0] }], decode: [url(engines[1])], port: 0 };
  const kinds = [
    { name: '1,000 tokens', tokens: 1000, stream: false },
    { name: '1,000 tokens, 17 events', tokens: 1000, stream: true },
    { name: '16 tokens', tokens: 16, stream: false },
  ];
  for (const scheduling of ['round_robin', 'prefix_aware'] as const) {
    const proxy = await XpydProxy.listen({ ...given, scheduling });
    const port = Number(new URL(proxy.url).port);
    for (const kind of scheduling === 'prefix_aware' ? kinds.slice(0, 1) : kinds) {
      await measure(`${kind.name}, ${scheduling}`, engines, port, kind, true);
    }
    await proxy.close();
  }
  await other(engines, kinds[0]);
  for (const { child } of [prefill, decode]) child.kill();
}

/** Another proxy, under the same load. */
async function other(engines: number[], kind: Kind): Promise<void> {
  const command = process.env.MOONCAKE_BENCH_PYTHON_PROXY;
  if (command === undefined) return missing('another proxy', 'MOONCAKE_BENCH_PYTHON_PROXY is not set');
  const port = await freePort();
  const [file, ...words] = command.split(' ');
  const flags = ['--prefill', `http://127.0.0.1:${engines[0]}`, String(engines[0])];
  const more = ['--decode', `http://127.0.0.1:${engines[1]}`, '--port', String(port)];
  const child = spawn(file, [...words, ...flags, ...more], { stdio: 'ignore' });
  try {
    for (let i = 0; ; i++) {
      const isUp = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"prompt":"x"}',
      }).then(
        ({ ok }) => ok,
        () => false,
      );
      if (isUp) break;
      if (i > 100) return missing('another proxy', `${command} does not serve`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    await measure(`the other, ${kind.name}`, engines, port, kind, false);
  } finally {
    child.kill();
  }
}
