/** `mooncake-ts replay [FILE]`: hit rates of a trace, or of a generated workload, by eviction policy and capacity. */
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import colors from 'picocolors';
import { oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { defaultCapacities } from '../replay/capacities.js';
import { plotSvg } from '../replay/plot.js';
import { type PolicyName, policyNames } from '../replay/policies.js';
import { readTrace } from '../replay/read.js';
import { type ReplayResult, replay } from '../replay/replay.js';
import { formatJson, formatTable } from '../replay/table.js';
import type { Trace } from '../replay/trace.js';
import { DEFAULT_WORKLOAD, generateTrace, WORKLOAD_LIMITS, type WorkloadOptions } from '../replay/workload.js';
import { drawingName, writeDrawing } from './drawing.js';
import { interruptible } from './interrupt.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { whole } from './values.js';

interface Options extends Record<keyof WorkloadOptions, number | undefined> {
  policy?: PolicyName[];
  blocks?: number[];
  json?: true;
  plot?: string;
}

const WORKLOAD = {
  sessions: 'sessions',
  turns: 'mean turns of a session',
  system: 'tokens of the common system prompt',
  first: 'mean tokens of a first input',
  input: 'mean tokens of a later input',
  output: 'mean tokens of an answer',
  seed: 'seed of the generator',
} satisfies Record<keyof WorkloadOptions, string>;

const workloadNames = Object.keys(WORKLOAD) as (keyof WorkloadOptions)[];

export function addReplay(program: Command): void {
  const command = program
    .command('replay')
    .summary('hit rates of a trace by eviction policy and capacity')
    .description(
      'Replays a Mooncake trace (JSON lines of timestamp, input_length, output_length, hash_ids) through the prefix ' +
        'index and eviction policies. One global cache; a hit is the leading run of present blocks; then all blocks are ' +
        'touched first to last and inserted; hit rates are weighted by blocks. opt is the offline optimum: no policy ' +
        'can do better with that capacity. Without FILE a multi-turn workload is generated.',
    )
    .argument('[FILE]', 'the trace; - reads standard input')
    .option('--policy <names>', `comma-separated: ${policyNames.join(', ')} (default all but store)`, parsePolicies)
    .option(
      '--blocks <sizes>',
      'comma-separated capacities in blocks; inf for no limit (default by size of the trace)',
      parseBlocks,
    )
    .option('--json', 'one JSON line for each policy and capacity')
    .option('--plot <FILE.svg>', 'also write hit rate over capacity as a drawing', drawingName);
  for (const name of workloadNames) {
    command.addOption(
      new Option(
        `--${name} <n>`,
        `generated workload: ${WORKLOAD[name]} (default ${DEFAULT_WORKLOAD[name]})`,
      ).argParser(whole(`--${name}`, ...WORKLOAD_LIMITS[name])),
    );
  }
  command.action((file: string | undefined, options: Options) => interruptible((signal) => run(file, options, signal)));
}

async function run(file: string | undefined, options: Options, signal: AbortSignal): Promise<void> {
  const progress = new Progress();
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  try {
    const { trace, title, origin } = await load(file, options, signal, progress);
    if (!options.json) process.stdout.write(`${origin}\n${describe(trace)}\n\n`);
    const capacities = options.blocks ?? defaultCapacities(trace.unique);
    // What the store does is least recently used with room to spare: a row of its own only for those who ask.
    const policies = options.policy ?? policyNames.filter((name) => name !== 'store');
    const results: ReplayResult[] = [];
    for (const policy of policies) {
      for (const blocks of capacities) {
        const step = `replay ${results.length + 1} of ${policies.length * capacities.length}: ${policy}, ${blocks === Infinity ? 'no limit' : `${blocks} blocks`}`;
        progress.update(step);
        const onProgress = (done: number) => progress.update(`${step}, ${Math.round(done * 100)} %`);
        const result = await replay(trace, { policy, blocks, signal, onProgress });
        results.push(result);
        if (!options.json) continue;
        progress.clear();
        process.stdout.write(`${formatJson(result)}\n`);
      }
    }
    progress.clear();
    if (!options.json) {
      process.stdout.write(
        `${formatTable(results, colors)}\n\n${results.length} ${results.length === 1 ? 'replay' : 'replays'} in ${seconds()} s\n`,
      );
    }
    if (options.plot !== undefined) writeDrawing(options.plot, plotSvg(results, title));
  } finally {
    progress.clear();
  }
}

async function load(file: string | undefined, options: Options, signal: AbortSignal, progress: Progress) {
  const given = workloadNames.filter((name) => options[name] !== undefined);
  if (file === undefined) {
    const workload = Object.fromEntries(given.map((name) => [name, options[name]])) as WorkloadOptions;
    const trace = generateTrace(workload);
    const { sessions, seed } = { ...DEFAULT_WORKLOAD, ...workload };
    const title = `generated multi-turn workload, ${sessions} sessions, seed ${seed}`;
    return { trace, title, origin: `${title} (name a trace to replay it: mooncake-ts replay TRACE.jsonl)` };
  }
  if (given.length > 0) {
    throw errors.invalidArgument(`--${given[0]}`, options[given[0]], 'left out when a trace is named');
  }
  progress.update(`reading ${printable(file)}`);
  const trace = await readTrace(file, { signal });
  progress.clear();
  const title = file === '-' ? 'standard input' : printable(basename(file));
  return { trace, title, origin: title };
}

function describe({ requests, blocks, unique, timestamps }: Trace): string {
  const [r, b, u] = [requests, blocks.length, unique].map((value) => value.toLocaleString('en-US'));
  const minutes = (timestamps[requests - 1] - timestamps[0]) / 60_000;
  return `${r} ${r === '1' ? 'request' : 'requests'} over ${minutes.toFixed(1)} minutes, ${b} blocks, ${u} of them distinct`;
}

function parsePolicies(text: string): PolicyName[] {
  return [...new Set(text.split(',').map((name) => oneOf('--policy', name.trim(), policyNames)))];
}

function parseBlocks(text: string): number[] {
  const capacities = text.split(',').map((part) => {
    const word = part.trim();
    if (word === 'inf') return Infinity;
    const blocks = /^\d{1,10}$/.test(word) ? Number(word) : 0;
    if (blocks < 1) throw errors.invalidArgument('--blocks', word, 'block counts of at least 1, or inf');
    return blocks;
  });
  return [...new Set(capacities)];
}
