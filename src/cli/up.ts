/** `mooncake-ts up`: everything on one machine. With `--demo` a workload and its proof, then it ends. */
import { type Command, Option } from 'commander';
import colors from 'picocolors';
import { type DemoProgress, type DemoResult, runDemo } from '../cluster/demo.js';
import { serveHttp } from '../cluster/http.js';
import { demoFigures, demoTable } from '../cluster/report.js';
import type { Scheduling } from '../cluster/router.js';
import { capacity, type Reference, startCluster } from '../cluster/start.js';
import { longest } from '../cluster/workload.js';
import type { HandoverMode } from '../connector/decode.js';
import { oneOf } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { parseSize } from '../store/size.js';
import { interruptible } from './interrupt.js';
import { Progress } from './progress.js';
import { whole } from './values.js';

interface Options {
  demo?: true;
  processes?: true;
  prefill: number;
  decode: number;
  scheduling: Scheduling;
  handover: HandoverMode;
  storeSize: number;
  blockSize: number;
  blocks: number;
  sessions: number;
  concurrency: number;
  turns: number;
  system: number;
  input: number;
  output: number;
  seed: number;
  host: string;
  port: number;
  json?: true;
}

const BLOCKS = 256;
/** What an engine forgets it finds in the store. */
const DEMO_BLOCKS = 64;
const MIN_STORE = 2 ** 20;

const SCHEDULING: readonly Scheduling[] = ['prefix_aware', 'round_robin'];
const HANDOVER: readonly HandoverMode[] = ['pull', 'push', 'layers'];

export function addUp(program: Command): void {
  const command = program
    .command('up')
    .summary('a cluster on this machine: prefill and decode engines, the store, the scheduler between them')
    .description(
      'Starts prefill and decode engines (the reference engine: a small real decoder), the store that they share and the ' +
        'scheduler between them, and keeps them running for others to use. With --demo it runs a multi-turn conversation ' +
        'workload instead, compares every answer with a run without any cache, prints what was saved, and ends; its exit ' +
        'code is 0 only if every answer is the same.',
    )
    .option('--demo', 'run the workload, verify it, and end')
    .option('--processes', 'each engine in a process of its own, KV over TCP');
  const number = (flag: string, help: string, value: number, min: number, max: number) =>
    command.addOption(new Option(`--${flag} <n>`, help).default(value).argParser(whole(`--${flag}`, min, max)));
  number('prefill', 'prefill engines', 2, 0, 16);
  number('decode', 'decode engines', 2, 1, 16);
  command
    .option(
      '--scheduling <policy>',
      SCHEDULING.join(' or '),
      (text) => oneOf('--scheduling', text, SCHEDULING),
      'prefix_aware' as Scheduling,
    )
    .option(
      '--handover <how>',
      'how decode engines get the KV of a prompt: pull, push, or layers, while the prefill computes',
      (text) => oneOf('--handover', text, HANDOVER),
      'pull' as HandoverMode,
    )
    .addOption(new Option('--store-size <size>', 'memory of the store').argParser(storeSize).default(2 ** 28, '256MB'));
  number('block-size', 'tokens of a block', 16, 1, 256);
  command.option(
    '--blocks <n>',
    `blocks of KV cache of each engine (default: ${BLOCKS}; in the demo ${DEMO_BLOCKS}, too few for all conversations)`,
    whole('--blocks', 16, 65536),
  );
  number('sessions', 'demo: conversations', 6, 1, 1000);
  number('concurrency', 'demo: conversations at the same time', 2, 1, 64);
  number('turns', 'demo: turns of a conversation', 4, 1, 64);
  number('system', 'demo: characters of the system prompt that all share', 256, 0, 4096);
  number('input', 'demo: characters of what is said in a turn', 80, 1, 4096);
  number('output', 'demo: most tokens of an answer', 32, 1, 1024);
  number('seed', 'seed of the weights and of the workload', 1, 0, 2 ** 31 - 1);
  command.option('--host <address>', 'address to listen on', '127.0.0.1');
  number('port', 'port of the HTTP API, 0 for any', 8000, 0, 65535);
  command
    .option('--json', 'the result of the demo, or the addresses of the cluster, as one JSON line')
    .action((options: Omit<Options, 'blocks'> & { blocks?: number }) => {
      const blocks = options.blocks ?? (options.demo ? DEMO_BLOCKS : BLOCKS);
      const command = options.demo ? demo : keepUp;
      return interruptible((signal) => stoppable(command({ ...options, blocks }, signal), signal));
    });
}

/** Once it is to stop, whatever fails fails because of that, or is too late to matter: the exit code is the signal's. */
async function stoppable(running: Promise<void>, signal: AbortSignal): Promise<void> {
  try {
    await running;
  } catch (error) {
    if (!signal.aborted) throw error;
    const stopped = error instanceof MooncakeError && error.code === 'ERR_ABORTED';
    if (!stopped) process.stderr.write(`while stopping: ${error instanceof Error ? error.message : error}\n`);
    throw errors.aborted(signal.reason);
  }
}

async function demo(options: Options, signal: AbortSignal): Promise<void> {
  checkFit(options);
  const progress = new Progress();
  const cluster = await startCluster({ ...options, signal, serveStore: options.processes ?? false });
  let result: DemoResult;
  try {
    if (!options.json) process.stdout.write(`${describe(options)}\n`);
    const baseline = cluster.baseline();
    try {
      result = await runDemo(cluster.cluster, {
        ...options,
        signal,
        encode: cluster.encode,
        recompute: baseline.recompute,
        onProgress: (state) => progress.update(progressLine(state)),
      });
    } finally {
      await baseline.close();
    }
  } finally {
    progress.clear();
    await cluster.close();
  }
  const figures = demoFigures(result);
  const verdict = `verified ${figures.verified} of ${figures.requests} completions equal to the run without cache`;
  const good = figures.verified === figures.requests;
  if (!good) process.exitCode = 1;
  if (options.json) process.stdout.write(`${JSON.stringify(figures)}\n`);
  else process.stdout.write(`\n${demoTable(figures)}\n\n${good ? colors.green(verdict) : colors.red(verdict)}\n`);
  if (good) return;
  const { session, turn, expected, actual } = result.firstDifference as NonNullable<DemoResult['firstDifference']>;
  process.stderr.write(
    `first difference: session ${session}, turn ${turn}: expected ${JSON.stringify(cluster.decode(expected))}, ` +
      `got ${JSON.stringify(cluster.decode(actual))}\n`,
  );
}

/** An engine that cannot hold the last turn would refuse it after all the others have been computed. */
function checkFit(options: Options): void {
  const [needed, held] = [1 + longest(options, options.output), capacity(options)];
  if (needed <= held) return;
  const most = capacity({ ...options, blocks: Number.POSITIVE_INFINITY });
  const way = needed <= most ? `--blocks ${Math.ceil((needed + 1) / options.blockSize)}` : 'fewer --turns';
  throw new MooncakeError(
    'ERR_INVALID_ARGUMENT',
    `--blocks: a conversation may grow to ${needed} tokens, an engine of ${options.blocks} blocks holds ${held}; take ` +
      `${way}, or a smaller --system, --input or --output`,
    { argument: '--blocks', value: options.blocks },
  );
}

function describe(options: Options): string {
  const { prefill, decode, processes, sessions, turns, concurrency, scheduling, handover, blocks, blockSize } = options;
  const where = processes ? 'each in a process of its own, KV over TCP' : 'in one process';
  return (
    `${prefill} prefill and ${decode} decode engines, ${where}; scheduling ${scheduling}${handover === 'pull' ? '' : `, hand-over ${handover}`}\n` +
    `each engine's own cache holds ${count(blocks * blockSize)} tokens; one store behind all of them\n` +
    `${sessions} conversations of ${turns} turns, ${Math.min(concurrency, sessions)} at a time`
  );
}

function progressLine({ phase, done, total, promptTokens, savedTokens }: DemoProgress): string {
  if (phase === 'verifying') return `computing again without cache: ${done} of ${total}`;
  const share =
    promptTokens === 0 ? '' : `, ${Math.round((100 * savedTokens) / promptTokens)} % of prompt tokens found`;
  return `serving: ${done} of ${total} requests${share}`;
}

async function keepUp(options: Options, signal: AbortSignal): Promise<void> {
  const cluster = await startCluster({ ...options, signal, serveStore: true });
  try {
    const http = await serveHttp(cluster.cluster, {
      host: options.host,
      port: options.port,
      model: cluster.model,
      encode: cluster.encode,
      maxTokens: cluster.maxTokens,
      status: cluster.status,
    });
    try {
      process.stdout.write(
        options.json ? `${JSON.stringify(addresses(cluster, http.url))}\n` : usage(cluster, http.url),
      );
      await untilOver(cluster, signal);
    } finally {
      await http.close();
    }
  } finally {
    await cluster.close();
  }
}

/** Until the signal; throws ERR_NO_INSTANCE when nobody is left who could answer. */
async function untilOver({ cluster: { instances } }: Reference, signal: AbortSignal): Promise<void> {
  for (const { gone } of instances) {
    gone.then((error) => {
      if (!signal.aborted) process.stderr.write(`${error.message}; the others go on without it\n`);
    });
  }
  const stopped = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const decode = instances.filter(({ role }) => role === 'decode');
  await Promise.race([stopped, Promise.all(decode.map(({ gone }) => gone))]);
  if (!signal.aborted) throw errors.noInstance(decode.length);
}

function addresses(cluster: Reference, url: string) {
  return { url, store: cluster.storeAddress, pids: cluster.pids };
}

function usage(cluster: Reference, url: string): string {
  const names = cluster.cluster.instances.map(({ name }) => name).join(', ');
  return `engines: ${names}
complete a prompt
  curl ${url}/v1/completions -H 'content-type: application/json' -d '{"prompt": "Hello", "max_tokens": 16}'
see who has done what
  curl ${url}/status
share the store from another program
  const transfer = await TcpTransfer.listen();
  const store = await MooncakeStore.attach({ transfer, address: '${cluster.storeAddress}' });
Ctrl-C ends it.
`;
}

function storeSize(text: string): number {
  const size = parseSize('--store-size', text);
  if (size < MIN_STORE) throw errors.invalidArgument('--store-size', text, 'at least 1MB');
  return size;
}

const count = (value: number) => value.toLocaleString('en-US');
