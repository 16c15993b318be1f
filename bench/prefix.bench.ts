/**
 * The prefix index on the work that published indexers are compared on: 16 instances, and for every request find the
 * longest prefix per instance, choose one, store the request's blocks there (the conversation trace in 512-token blocks,
 * and its first 3,000 requests in 16-token blocks), and two synthetic works of 1,000 chains of 1,000 blocks over 64
 * instances. Keys are 8 bytes, as the peers' are. Requests are built before the clock starts, as theirs are; the copy of
 * a request into the WASM memory is inside our time, since a caller's hashes lie in JavaScript.
 *
 *   --trace=FILE, MOONCAKE_BENCH_TRACE       conversation_trace.jsonl of the Mooncake traces, for conv512 and conv16
 *   --smg=FILE, MOONCAKE_BENCH_SMG           a program that runs SGLang Model Gateway's ChainIndex (kv-index 2.0.0)
 *   --dynamo=FILE, MOONCAKE_BENCH_DYNAMO     the same for NVIDIA Dynamo's RadixTree (dynamo-kv-router 1.6.1)
 *   --reps=N                                 repetitions, the median counts (5)
 *
 * A peer is called as `smgbench WORK REPS` or `dynbench radix WORK REPS`, in a folder beside `WORK.bin` (u32 count, then
 * u32 n and n u64 for each request), and prints lines of tab-separated words: system, work, metric, median=VALUE.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrefixIndex } from 'mooncake-ts';
import { MapIndex } from './support/map-index.js';
import { choose, conversation, synthetic, type Work } from './support/prefix-work.js';
import { median, missing, report } from './support/report.js';

const flag = (name: string) => process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
const setting = (name: string) => flag(name) ?? process.env[`MOONCAKE_BENCH_${name.toUpperCase()}`];
const REPS = Number(flag('reps') ?? 5);

// The peers are compiled ahead of time; JavaScript finds its speed while it runs, for each index anew.
const WARM_PASSES = 3;

/** Rates are per second; `bytes` is for one distinct block. */
type Figures = Map<string, number>;

interface Indexer {
  insert(instance: number, hashes: BigUint64Array): void;
  /** Leading blocks of each instance. */
  find(hashes: BigUint64Array, lengths: Uint32Array): void;
  bytes(): number;
}

function ours(instances: number): Indexer {
  const index = new PrefixIndex({ keyWidth: 8 });
  for (let i = 0; i < instances; i++) index.addInstance(`10.0.0.${i}`);
  return {
    insert: (instance, hashes) => void index.insert(instance, hashes),
    find: (hashes, lengths) => void index.matchInto(hashes, lengths),
    bytes: () => index.stats().bytes,
  };
}

function seconds(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

/** Replays requests once; returns the instances chosen, the checksum and the sum of best matches. */
function replay(index: Indexer, requests: BigUint64Array[], half: boolean, instances: number) {
  const lengths = new Uint32Array(instances);
  const chosen = new Uint8Array(requests.length);
  const state = { next: 0 };
  let checksum = 0;
  let matched = 0;
  for (let i = 0; i < requests.length; i++) {
    index.find(requests[i], lengths);
    const { instance, best } = choose(lengths, requests[i].length, half, state);
    matched += best;
    checksum += (instance + 1) * (i + 1);
    chosen[i] = instance;
    index.insert(instance, requests[i]);
  }
  return { chosen, checksum, matched };
}

function measureConversation(make: (instances: number) => Indexer, work: Work, half: boolean, reps: number): Figures {
  const { requests, unique, instances } = work;
  const rates = new Map<string, number[]>();
  const note = (name: string, value: number) => rates.set(name, [...(rates.get(name) ?? []), value]);
  for (let rep = 0; rep < reps; rep++) {
    let result: ReturnType<typeof replay> | undefined;
    const fresh = make(instances);
    note('replay', requests.length / seconds(() => void (result = replay(fresh, requests, half, instances))));
    const expected = work.expected![half ? 'half' : 'best'];
    if (result!.checksum !== expected.checksum || result!.matched !== expected.matched) {
      throw new Error(`${work.name}: other decisions: ${result!.checksum}/${result!.matched}`);
    }
    const index = make(instances);
    const blocks = requests.reduce((sum, request) => sum + request.length, 0);
    const store = seconds(() => requests.forEach((request, i) => void index.insert(result!.chosen[i], request)));
    note('store blocks', blocks / store);
    note('bytes', index.bytes() / unique);
    const lengths = new Uint32Array(instances);
    const passes = work.name === 'conv512' ? 3 : 10;
    for (let pass = 0; pass < WARM_PASSES; pass++) for (const request of requests) index.find(request, lengths);
    const find = seconds(() => {
      for (let pass = 0; pass < passes; pass++) for (const request of requests) index.find(request, lengths);
    });
    note('find', (passes * requests.length) / find);
  }
  return new Map([...rates].map(([name, values]) => [name, median(values)]));
}

function measureSynthetic(make: (instances: number) => Indexer, work: Work, reps: number): Figures {
  const { requests, unique, instances, stores, misses } = work;
  const rates = new Map<string, number[]>();
  const note = (name: string, value: number) => rates.set(name, [...(rates.get(name) ?? []), value]);
  const blocks = stores!.reduce((sum, [, hashes]) => sum + hashes.length, 0);
  const lengths = new Uint32Array(instances);
  const queries = 3000;
  for (let rep = 0; rep < reps; rep++) {
    const index = make(instances);
    note(
      'store blocks',
      blocks / seconds(() => stores!.forEach(([instance, hashes]) => void index.insert(instance, hashes))),
    );
    note('bytes', index.bytes() / unique);
    for (let k = 0; k < WARM_PASSES * queries; k++) index.find(requests[k % requests.length], lengths);
    let matched = 0;
    const find = seconds(() => {
      for (let k = 0; k < queries; k++) {
        index.find(requests[(k * 617) % requests.length], lengths);
        let best = 0;
        for (let i = 0; i < instances; i++) if (lengths[i] > best) best = lengths[i];
        matched += best;
      }
    });
    if (matched !== queries * 1000) throw new Error(`${work.name}: ${matched} blocks matched`);
    note('find', queries / find);
    note(
      'find miss',
      queries /
        seconds(() => {
          for (let k = 0; k < queries; k++) index.find(misses![k % misses!.length], lengths);
        }),
    );
  }
  return new Map([...rates].map(([name, values]) => [name, median(values)]));
}

// The peers' metrics under our names.
const PEER_METRICS: [metric: string, name: string][] = [
  ['replay_req_per_s(find+choose+store full)', 'replay'],
  ['store_blocks_per_s', 'store blocks'],
  ['find_per_s', 'find'],
  ['find_miss_per_s', 'find miss'],
  ['bytes_per_unique_block', 'bytes'],
];

/** Runs a peer on a work; its figures by policy ('' for the synthetic works). */
function runPeer(program: string, words: string[], folder: string): Map<string, Figures> {
  const output = execFileSync(program, words, { cwd: folder, encoding: 'utf8' });
  const figures = new Map<string, Figures>();
  for (const line of output.split('\n')) {
    const [, work, metric, value] = line.split('\t');
    const known = PEER_METRICS.find(([prefix]) => metric?.startsWith(prefix));
    if (!known || !value?.startsWith('median=')) continue;
    const policy = work.split('/')[1] ?? '';
    if (!figures.has(policy)) figures.set(policy, new Map());
    figures.get(policy)!.set(known[1], Number(value.slice('median='.length)));
  }
  return figures;
}

function print(label: string, own: Figures, peers: [name: string, figures: Figures | undefined][]): void {
  for (const [name, value] of own) {
    const unit = name === 'bytes' ? 'B/block' : name === 'store blocks' ? 'blocks/s' : '1/s';
    const better = name === 'bytes' ? 'lower' : 'higher';
    for (const [peer, figures] of peers) {
      const baseline = figures?.get(name);
      if (baseline === undefined) continue;
      report({ name: `prefix ${label} ${name}`, value, unit, baseline, peer }, better);
    }
    if (!peers.some(([, figures]) => figures?.has(name)))
      report({ name: `prefix ${label} ${name}`, value, unit }, better);
  }
}

function main(): void {
  const trace = setting('trace');
  const programs = (
    [
      ['ChainIndex', setting('smg'), []],
      ['RadixTree', setting('dynamo'), ['radix']],
    ] as const
  ).filter(([name, program]) => {
    if (program && existsSync(program)) return true;
    missing(
      `prefix against ${name}`,
      program ? `no such file: ${program}` : 'its program is not named (see the header)',
    );
    return false;
  });
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-bench-'));
  const run = join(folder, 'run');
  mkdirSync(run);
  try {
    const works: Work[] = [synthetic('synth1'), synthetic('synth2')];
    if (trace) works.unshift(...conversation(readFileSync(trace, 'utf8')));
    else missing('prefix conv512 and conv16', 'no trace named (--trace=FILE)');
    for (const work of works) {
      if (work.file) writeFileSync(join(folder, `${work.name}.bin`), work.file());
      const peers = programs.map(([name, program, words]) => {
        return [name, runPeer(program!, [...words, work.name, String(REPS)], run)] as const;
      });
      const policies = work.expected ? ['half', 'best'] : [''];
      for (const policy of policies) {
        const label = policy ? `${work.name} ${policy}` : work.name;
        const measure = (make: typeof ours, reps: number) =>
          policy ? measureConversation(make, work, policy === 'half', reps) : measureSynthetic(make, work, reps);
        const own = measure(ours, REPS);
        const map = policy === 'best' ? undefined : measure((instances) => new MapIndex(instances), 1);
        print(label, own, [
          ...peers.map(([name, figures]) => [name, figures.get(policy)] as [string, Figures]),
          ['Map', map],
        ]);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

main();
