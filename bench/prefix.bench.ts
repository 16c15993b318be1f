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
 *   --reps=N                                 runs of each, in turn; the median counts (5)
 *   --worst                                  ten million blocks also as chains of one block each (minutes)
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

// The peers are compiled ahead of time; V8 compiles WASM well only after many calls, and ties calls to each instance anew.
const WARM_CALLS = 300_000;
const WARM_PASSES = 10;
// A pass of finds takes a millisecond or two, too short a time to measure alone.
const PASSES = 10;

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

type Make = (instances: number) => Indexer;

function runConversation(make: Make, work: Work, half: boolean): Figures {
  const { requests, unique, instances } = work;
  const figures: Figures = new Map();
  let result: ReturnType<typeof replay> | undefined;
  const fresh = make(instances);
  figures.set('replay', requests.length / seconds(() => void (result = replay(fresh, requests, half, instances))));
  const expected = work.expected![half ? 'half' : 'best'];
  if (result!.checksum !== expected.checksum || result!.matched !== expected.matched) {
    throw new Error(`${work.name}: other decisions: ${result!.checksum}/${result!.matched}`);
  }
  const index = make(instances);
  const blocks = requests.reduce((sum, request) => sum + request.length, 0);
  const store = seconds(() => requests.forEach((request, i) => void index.insert(result!.chosen[i], request)));
  figures.set('store blocks', blocks / store);
  figures.set('bytes', index.bytes() / unique);
  const lengths = new Uint32Array(instances);
  const passes = work.name === 'conv512' ? 3 : PASSES;
  for (let pass = 0; pass < WARM_PASSES; pass++) for (const request of requests) index.find(request, lengths);
  const find = seconds(() => {
    for (let pass = 0; pass < passes; pass++) for (const request of requests) index.find(request, lengths);
  });
  figures.set('find', (passes * requests.length) / find);
  return figures;
}

function runSynthetic(make: Make, work: Work): Figures {
  const { requests, unique, instances, stores, misses } = work;
  const figures: Figures = new Map();
  const blocks = stores!.reduce((sum, [, hashes]) => sum + hashes.length, 0);
  const lengths = new Uint32Array(instances);
  const queries = 3000;
  const index = make(instances);
  figures.set(
    'store blocks',
    blocks / seconds(() => stores!.forEach(([instance, hashes]) => void index.insert(instance, hashes))),
  );
  figures.set('bytes', index.bytes() / unique);
  for (let k = 0; k < WARM_PASSES * queries; k++) index.find(requests[k % requests.length], lengths);
  let matched = 0;
  const find = seconds(() => {
    for (let k = 0; k < PASSES * queries; k++) {
      index.find(requests[(k * 617) % requests.length], lengths);
      let best = 0;
      for (let i = 0; i < instances; i++) if (lengths[i] > best) best = lengths[i];
      matched += best;
    }
  });
  if (matched !== PASSES * queries * 1000) throw new Error(`${work.name}: ${matched} blocks matched`);
  figures.set('find', (PASSES * queries) / find);
  figures.set(
    'find miss',
    (PASSES * queries) /
      seconds(() => {
        for (let k = 0; k < PASSES * queries; k++) index.find(misses![k % misses!.length], lengths);
      }),
  );
  return figures;
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

function print(label: string, own: Figures, peers: [name: string, figures: Figures][]): void {
  for (const [name, value] of own) {
    const unit = name === 'bytes' ? 'B/block' : name === 'store blocks' ? 'blocks/s' : '1/s';
    const better = name === 'bytes' ? 'lower' : 'higher';
    for (const [peer, figures] of peers) {
      const baseline = figures.get(name);
      if (baseline === undefined) continue;
      report({ name: `prefix ${label} ${name}`, value, unit, baseline, peer }, better);
    }
    if (!peers.some(([, figures]) => figures.has(name)))
      report({ name: `prefix ${label} ${name}`, value, unit }, better);
  }
}

/** Runs what is measured until V8 has compiled it, on an index of its own. */
function warmUp(): void {
  const index = ours(16);
  const lengths = new Uint32Array(16);
  const chains = Array.from({ length: 500 }, (_, i) => {
    return BigUint64Array.from({ length: 40 }, (_, j) => BigInt(j < 20 ? j + 1 : 64 * i + j + 1) * 0x9e3779b97f4a7c15n);
  });
  for (let call = 0; call < WARM_CALLS; call++) {
    if (call % 4 === 0) index.insert(call % 16, chains[call % 500]);
    index.find(chains[(call * 7) % 500], lengths);
  }
}

/** The medians of several runs, figure by figure. */
function medians(runs: Figures[]): Figures {
  return new Map([...runs[0].keys()].map((name) => [name, median(runs.map((figures) => figures.get(name)!))]));
}

/** Ten million 32-byte hashes in chains of `length`, two holders each of 1,024 instances: bytes of memory in all. */
function tenMillion(length: number): void {
  const index = new PrefixIndex({ keyWidth: 32 });
  for (let i = 0; i < 1024; i++) index.addInstance(`10.0.0.${i}`);
  const hashes = new Uint8Array(32 * length);
  const words = new Uint32Array(hashes.buffer);
  let state = 1;
  const stores = 2e7 / length;
  const took = seconds(() => {
    for (let chain = 0; chain < 1e7 / length; chain++) {
      // A 32-bit generator of full period (Numerical Recipes) fills the eight words of a hash.
      for (let k = 0; k < words.length; k++) words[k] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      for (let k = 0; k < words.length; k += 8) words[k + 7] = chain * length + k / 8;
      index.insert(chain % 1024, hashes);
      index.insert((chain * 31 + 7) % 1024, hashes);
    }
  });
  const { blocks, held, bytes } = index.stats();
  if (blocks !== 1e7 || held !== 2e7) throw new Error(`${blocks} blocks, ${held} held`);
  const label = `prefix 10M x 32 B, 2 holders, chains of ${length}`;
  report({ name: `${label}: memory`, value: bytes / 1e6, unit: 'MB', baseline: 1000, peer: 'limit' }, 'lower');
  report({ name: `${label}: inserts`, value: stores / took, unit: '1/s' }, 'higher');
}

/**
 * Blocks wait to be entered in the table until one is asked for by its key alone: what the first who asks pays, where as
 * many wait as may.
 */
function firstByKey(): void {
  const times: number[] = [];
  for (let rep = 0; rep < REPS; rep++) {
    const index = new PrefixIndex({ keyWidth: 8 });
    index.addInstance('10.0.0.1');
    const hashes = new BigUint64Array(1024);
    let next = 1n;
    for (let chain = 0; chain < 2048; chain++) {
      for (let k = 0; k < hashes.length; k++) hashes[k] = BigInt.asUintN(64, next++ * 0x9e3779b97f4a7c15n);
      index.insert(0, hashes);
    }
    times.push(1000 * seconds(() => void index.remove(0, hashes.subarray(500, 501))));
  }
  report({ name: 'prefix 2M blocks inserted, first removal', value: median(times), unit: 'ms' }, 'lower');
}

function main(): void {
  const trace = setting('trace');
  const named = [
    ['ChainIndex', setting('smg'), []],
    ['RadixTree', setting('dynamo'), ['radix']],
  ] as const;
  const programs = named.filter(([name, program]) => {
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
    warmUp();
    for (const work of works) {
      if (work.file) writeFileSync(join(folder, `${work.name}.bin`), work.file());
      const policies = work.expected ? ['half', 'best'] : [''];
      const once = (make: Make, policy: string) =>
        policy ? runConversation(make, work, policy === 'half') : runSynthetic(make, work);
      // Ours and the peers' runs take turns, so that a noisy moment of the machine hits both.
      const own = new Map<string, Figures[]>(policies.map((policy) => [policy, []]));
      const theirs = new Map<string, Figures[]>();
      for (const policy of policies) once(ours, policy);
      for (let rep = 0; rep < REPS; rep++) {
        for (const policy of policies) own.get(policy)!.push(once(ours, policy));
        for (const [name, program, words] of programs) {
          for (const [policy, figures] of runPeer(program!, [...words, work.name, '1'], run)) {
            const key = `${name} ${policy}`;
            theirs.set(key, [...(theirs.get(key) ?? []), figures]);
          }
        }
      }
      for (const policy of policies) {
        const peers = programs.map(([name]): [string, Figures] => [name, medians(theirs.get(`${name} ${policy}`)!)]);
        if (policy !== 'best') peers.push(['Map', once((instances) => new MapIndex(instances), policy)]);
        print(policy ? `${work.name} ${policy}` : work.name, medians(own.get(policy)!), peers);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  firstByKey();
  for (const length of process.argv.includes('--worst') ? [1000, 16, 1] : [1000, 16]) tenMillion(length);
}

main();
