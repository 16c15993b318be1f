/** `mooncake-ts bench <name>`: workloads that are run as a user would compare systems with them. */
import { type Command, Option } from 'commander';
import colors from 'picocolors';
import { oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { POLICIES } from '../eviction/registry.js';
import {
  AGENTIC_DEFAULTS,
  type AgenticOptions,
  type AgenticResult,
  agentic,
  GPUS_PER_PAIR,
  MAX_GPUS,
} from '../replay/agentic.js';
import { addBenchTransfer } from './bench-transfer.js';
import { interruptible } from './interrupt.js';
import { Progress } from './progress.js';

type NumberName = {
  [name in keyof typeof AGENTIC_DEFAULTS]: (typeof AGENTIC_DEFAULTS)[name] extends number ? name : never;
}[keyof typeof AGENTIC_DEFAULTS];

const NUMBERS: Record<NumberName, [flag: string, help: string]> = {
  sessions: ['sessions', `sessions for each ${GPUS_PER_PAIR} GPUs`],
  turns: ['turns', 'turns of a session'],
  system: ['system', 'tokens of the instructions that all sessions share'],
  first: ['first', 'tokens of the first input'],
  input: ['input', 'tokens of the input of each later turn'],
  output: ['output', 'tokens of an answer'],
  block: ['block', 'tokens of a block'],
  tokenBytes: ['token-bytes', 'bytes of KV cache for one token'],
  hbm: ['hbm', 'GB of each GPU that hold KV cache'],
  segment: ['segment', 'GB of host memory that each GPU gives to the pool'],
  tokenTime: ['token-time', 'milliseconds in which a token of an answer is generated'],
  seed: ['seed', 'seed of the times between turns'],
};

const policies = Object.keys(POLICIES) as AgenticOptions['policy'][];

interface Options extends Partial<Record<NumberName, number>> {
  gpus: number[];
  policy: AgenticOptions['policy'];
  saveOutput: boolean;
  json?: true;
}

export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .description('benchmarks: how fast this machine moves bytes, and what a shared pool saves');
  const command = bench
    .command('agentic')
    .summary('the published agentic store workload, with and without the shared pool')
    .description(
      'Runs the agentic workload that was published with the Mooncake store of vLLM through prefix index, allocator and ' +
        'eviction, on the capacity of 12 to 60 GPUs with round-robin routing, without and with the pool that all ' +
        'instances share. The hit rate is the share of prompt tokens that need no prefill.',
    )
    .option('--gpus <counts>', `comma-separated multiples of ${GPUS_PER_PAIR}`, parseGpus, [12, 24, 36, 48, 60])
    .option(
      '--policy <name>',
      `eviction in the pool: ${policies.join(', ')}`,
      (text) => oneOf('--policy', text, policies),
      'lru',
    )
    .option('--no-save-output', 'answers are not saved to the pool')
    .option('--json', 'one JSON line for each number of GPUs');
  for (const name of Object.keys(NUMBERS) as NumberName[]) {
    const [flag, help] = NUMBERS[name];
    const option = new Option(`--${flag} <n>`, help).default(AGENTIC_DEFAULTS[name]);
    command.addOption(option.argParser((text) => parseNumber(`--${flag}`, text)));
  }
  command.action((options: Options) => interruptible((signal) => runAgentic(options, signal)));
  addBenchTransfer(bench);
}

async function runAgentic({ gpus: counts, json, ...settings }: Options, signal: AbortSignal): Promise<void> {
  const progress = new Progress();
  const started = performance.now();
  let heading = json ? '' : `${header(settings)}\n`;
  try {
    for (const gpus of counts) {
      const onProgress = (done: number) => progress.update(`${gpus} GPUs: ${Math.round(done * 100)} %`);
      const result = await agentic({ ...settings, gpus, signal, onProgress });
      progress.clear();
      process.stdout.write(`${heading}${json ? jsonLine(result) : row(result)}\n`);
      heading = '';
    }
  } finally {
    progress.clear();
  }
  if (json) return;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stdout.write(`\npublished: above 95 % with the pool at all scales; ${seconds} s\n`);
}

const percent = (share: number) => `${(share * 100).toFixed(2)} %`;
const gigabytes = (bytes: number) => `${(bytes / 1e9).toLocaleString('en-US', { maximumFractionDigits: 0 })} GB`;
const WIDTHS = [5, 9, 9, 10, 10, 13, 13, 17];

function columns(cells: readonly string[]): string {
  return cells.map((cell, at) => cell.padStart(WIDTHS[at])).join(' ');
}

function header(settings: Omit<Options, 'gpus' | 'json'>): string {
  const { system, first, input, output, turns } = { ...AGENTIC_DEFAULTS, ...settings };
  const n = (tokens: number) => tokens.toLocaleString('en-US');
  const titles = ['GPUs', 'sessions', 'requests', 'no pool', 'with pool', 'GPU evicts', 'pool evicts', 'pool in use'];
  return [
    `${n(system)} common tokens, ${n(first)} first input, ${n(input)} a turn, ${n(output)} answer, ${turns} turns; hit rate by prompt tokens`,
    '',
    colors.dim(columns(titles)),
  ].join('\n');
}

function row(result: AgenticResult): string {
  const { gpus, sessions, requests, localHitRate, hitRate, localEvictions, poolEvictions } = result;
  const [g, s, r, local, pool] = [gpus, sessions, requests, localEvictions, poolEvictions].map((value) =>
    value.toLocaleString('en-US'),
  );
  const use = `${gigabytes(result.poolBytes)} of ${gigabytes(result.poolCapacity)}`;
  return columns([g, s, r, percent(localHitRate), percent(hitRate), local, pool, use]);
}

/** The line of every benchmark (name, value, unit, baseline, ratio), then the figures behind it. */
function jsonLine({ hitRate, localHitRate, ...figures }: AgenticResult): string {
  const rounded = (value: number) => Number(value.toFixed(4));
  return JSON.stringify({
    name: `agentic/${figures.gpus}-gpus`,
    value: rounded(hitRate),
    unit: 'hit rate',
    baseline: rounded(localHitRate),
    ratio: localHitRate > 0 ? rounded(hitRate / localHitRate) : null,
    peer: 'no shared pool',
    ...figures,
  });
}

function parseGpus(text: string): number[] {
  return text.split(',').map((part) => {
    const word = part.trim();
    const gpus = /^\d{1,4}$/.test(word) ? Number(word) : 0;
    if (gpus < GPUS_PER_PAIR || gpus > MAX_GPUS || gpus % GPUS_PER_PAIR !== 0) {
      throw errors.invalidArgument('--gpus', word, `a multiple of ${GPUS_PER_PAIR}, at most ${MAX_GPUS}`);
    }
    return gpus;
  });
}

function parseNumber(name: string, text: string): number {
  if (!/^\d{1,12}(\.\d+)?$/.test(text)) throw errors.invalidArgument(name, text, 'a number');
  return Number(text);
}
