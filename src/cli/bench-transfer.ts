/** `mooncake-ts bench transfer`: what each transport moves on this machine, or between two. */
import { cpus } from 'node:os';
import { type Command, Option } from 'commander';
import colors from 'picocolors';
import { LANES, type TargetNames } from '../bench/transfer/lanes.js';
import { plotSvg } from '../bench/transfer/plot.js';
import {
  type BenchOptions,
  benchTransfer,
  DEFAULT_SIZES,
  defaultTotal,
  LANE_NAMES,
  PEER_NAMES,
} from '../bench/transfer/run.js';
import { formatJson, formatTable, sizeText } from '../bench/transfer/table.js';
import { openTarget } from '../bench/transfer/target.js';
import { oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { parseSize } from '../store/size.js';
import { formatName, parseName } from '../transfer/metadata/name.js';
import { drawingName, writeDrawing } from './drawing.js';
import { interruptible } from './interrupt.js';
import { Progress } from './progress.js';
import { whole } from './values.js';

interface Options {
  transports: string[];
  sizes?: number[];
  total?: number;
  verify: ('full' | 'off')[];
  peers: string[];
  rounds: number;
  timeout: number;
  listen?: string;
  connect?: string;
  plot?: string;
  json?: true;
}

const MAX_SIZE = 2 ** 30;
/** Room for the batches that are not of the sizes asked for. */
const MIN_TOTAL = 2 ** 20;
const MAX_TOTAL = 2 ** 36;

export function addBenchTransfer(bench: Command): void {
  bench
    .command('transfer')
    .summary('GB/s and latency of every transport, over block sizes')
    .description(
      'Moves blocks between the memories of two processes and prints GB/s by block size for every transport that ' +
        'works here, what one read of 4 KiB takes, and what a descriptor costs; medians of batches taken in turns, ' +
        'beside a copy of all of it on one core. The other process is started on this machine; between two machines, ' +
        'run it with --listen on one and --connect on the other.',
    )
    .addOption(
      new Option('--transports <names>', `comma-separated: ${LANE_NAMES.join(', ')}`)
        .argParser(list('--transports', LANE_NAMES))
        .default(LANE_NAMES, 'all'),
    )
    .option('--sizes <sizes>', 'comma-separated sizes of a block (default 4 KiB to 16 MiB)', parseSizes)
    .option('--total <size>', 'memory on each side (default 512 MiB, less where memory is short)', parseTotal)
    .addOption(
      new Option('--verify <modes>', 'full, off, or both, comma-separated')
        .argParser(list('--verify', ['full', 'off']))
        .default(['full', 'off'], 'both'),
    )
    .addOption(
      new Option(
        '--peers <names>',
        `other systems to measure in the same run, comma-separated: ${PEER_NAMES.join(', ')}; NIXL_PYTHON and ` +
          'MOONCAKE_PYTHON name Pythons that have them',
      )
        .argParser(list('--peers', PEER_NAMES))
        .default([], 'none'),
    )
    .option('--rounds <n>', 'measurements of each figure', whole('--rounds', 1, 1000), 5)
    .option('--timeout <seconds>', 'deadline of a batch', whole('--timeout', 1, 3600), 30)
    .option(
      '--listen <host:port>',
      'be the other side for a machine that connects; the TypeScript path takes the next port',
    )
    .option('--connect <host:port>', 'measure against the side that listens there')
    .option('--plot <FILE.svg>', 'also write GB/s over block size as a drawing', drawingName)
    .option('--json', 'one JSON line for each figure')
    .action((options: Options) =>
      interruptible((signal) => (options.listen === undefined ? run(options, signal) : listen(options, signal))),
    );
}

async function run({ timeout, connect, json, plot, ...given }: Options, signal: AbortSignal): Promise<void> {
  const total = given.total ?? defaultTotal();
  const sizes = given.sizes ?? DEFAULT_SIZES.filter((size) => size <= total);
  for (const size of sizes) {
    if (size > total) throw errors.invalidArgument('--sizes', sizeText(size), `at most --total, ${sizeText(total)}`);
  }
  const lanes = connect === undefined ? given.transports : given.transports.filter((name) => REMOTE.has(name));
  const progress = new Progress();
  const options: BenchOptions = {
    lanes,
    peers: connect === undefined ? given.peers : [],
    sizes,
    total,
    verify: given.verify,
    rounds: given.rounds,
    timeoutMs: timeout * 1000,
    ...(connect !== undefined && { target: targetNames(connect) }),
    signal,
    onProgress: (text) => progress.update(text),
  };
  const result = await benchTransfer(options).finally(() => progress.clear());
  if (json) process.stdout.write(`${formatJson(result).join('\n')}\n`);
  else {
    const found = `${result.rounds} ${result.rounds === 1 ? 'round' : 'rounds'} in ${result.seconds.toFixed(0)} s`;
    process.stdout.write(`${formatTable(result, colors)}\n\n${found}\n`);
  }
  if (result.contenders.every(({ unusable }) => unusable !== undefined)) {
    const there = `is \`mooncake-ts bench transfer --listen ${connect}\` running there?`;
    process.stderr.write(`nothing could be measured${connect === undefined ? '' : `: ${there}`}\n`);
    process.exitCode = 1;
  }
  if (plot !== undefined) writeDrawing(plot, plotSvg(result, machine(connect)));
}

/** The other side, until it is interrupted. */
async function listen({ listen: place, total = defaultTotal() }: Options, signal: AbortSignal): Promise<void> {
  const { host, port } = parseName('--listen', place as string);
  const target = await openTarget({ total, host, port });
  try {
    const ways = target.names.native === undefined ? 'TypeScript alone' : 'the accelerator';
    process.stderr.write(`listening on ${place} with ${sizeText(total)} by ${ways}; interrupt to end\n`);
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  } finally {
    await target.close();
  }
  throw errors.aborted(signal.reason);
}

const REMOTE = new Set(LANES.filter(({ network }) => network).map(({ name }) => name));

/** The accelerated engine answers there, the one in TypeScript at the next port. */
function targetNames(place: string): TargetNames {
  const { host, port } = parseName('--connect', place);
  return { native: formatName({ host, port }), typescript: formatName({ host, port: port + 1 }) };
}

function machine(connect?: string): string {
  const [{ model }] = cpus();
  return `${model.trim()}, ${cpus().length} cores${connect === undefined ? '' : `, to ${connect}`}`;
}

function list<T extends string>(flag: string, choices: readonly T[]): (text: string) => T[] {
  return (text) => [...new Set(text.split(',').map((word) => oneOf(flag, word.trim(), choices)))];
}

function parseSizes(text: string): number[] {
  const sizes = text.split(',').map((word) => size('--sizes', word, 1, MAX_SIZE));
  return [...new Set(sizes)].sort((a, b) => a - b);
}

const parseTotal = (text: string) => size('--total', text, MIN_TOTAL, MAX_TOTAL);

function size(flag: string, text: string, least: number, most: number): number {
  // "4KiB" and "4KB" are both 4096 here.
  const bytes = parseSize(flag, text.replace(/i(?=b$)/i, ''));
  if (bytes < least || bytes > most) {
    throw errors.invalidArgument(flag, text.trim(), `from ${sizeText(least)} to ${sizeText(most)}`);
  }
  return bytes;
}
