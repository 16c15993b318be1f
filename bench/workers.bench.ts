// From tokens to who has them, in two workers against one thread, while the main thread goes on inserting.
//
//     npm run bench -- workers [--json]
//
// Prompts of 860 blocks (16 tokens each) lie in shared memory; an index of 16-byte or 32-byte keys holds leading parts
// of them for 32 instances. One thread: the main thread hashes and matches with plain calls of the core and does nothing
// else. Two workers: the main thread keeps 16 calls of 32 prompts in flight and inserts 100 chains of 860 blocks a second
// into the index that the workers read, and removes as many. Rounds of both alternate; medians. The delay of the event loop is the main
// thread's in the workers' rounds. The ratio needs two free cores: "cores" is the CPU time that a round got for each
// second of wall clock, and "CPU a prompt" what a prompt took of it, all threads of the process together.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { blockHashes, blockHashesBatch, type HashAlgorithm, PrefixIndex, WorkerPool } from 'mooncake-ts';
import { median, report } from './support/report.js';

const BLOCKS = 860;
const LENGTH = 16 * BLOCKS;
const PROMPTS = 512;
const INSTANCES = 32;
const CALL = 32;
const IN_FLIGHT = 16;
const INSERTS = 100;
const ROUNDS = 9;
const ROUND_MS = 800;
const EMPTY_CALLS = 2000;
/** Of the event loop's delay, which holds it; sampling each millisecond costs 3 % of a core. */
const SAMPLING_MS = 2;

/** Prompts in families that share their first half, as conversations and system prompts do. */
function makePrompts(): Uint32Array[] {
  const memory = new SharedArrayBuffer(4 * LENGTH * PROMPTS);
  return Array.from({ length: PROMPTS }, (_, i) => {
    const prompt = new Uint32Array(memory, 4 * LENGTH * i, LENGTH);
    const family = i >> 3;
    for (let j = 0; j < LENGTH; j++)
      prompt[j] = (Math.imul(j + 1, 2654435761) ^ (j < LENGTH / 2 ? family : 7919 * i)) >>> 15;
    return prompt;
  });
}

function groupsOf<T>(items: readonly T[]): T[][] {
  return Array.from({ length: items.length / CALL }, (_, i) => items.slice(i * CALL, (i + 1) * CALL));
}

/** CPU microseconds of the process so far. */
function cpu(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

interface Round {
  /** Prompts a second. */
  rate: number;
  /** Cores used, of the wall clock. */
  cores: number;
}

async function measured(work: (until: number) => Promise<number>): Promise<Round> {
  const [start, before] = [performance.now(), cpu()];
  const prompts = await work(start + ROUND_MS);
  const ms = performance.now() - start;
  return { rate: (1000 * prompts) / ms, cores: (cpu() - before) / ms / 1000 };
}

async function compare(algorithm: HashAlgorithm, keyWidth: 16 | 32): Promise<void> {
  const options = { blockSize: 16, algorithm, seed: '0' };
  const prompts = makePrompts();
  const groups = groupsOf(prompts);
  const index = new PrefixIndex({ shared: true, keyWidth });
  for (let i = 0; i < INSTANCES; i++) index.addInstance(`instance-${i}`);
  for (const [i, prompt] of prompts.entries()) {
    const hashes = blockHashes(prompt, options);
    index.insert(i % INSTANCES, hashes.slice(0, (i * 131) % BLOCKS));
  }
  const pool = new WorkerPool({ threads: 2, inline: 'never', index });
  const loop = monitorEventLoopDelay({ resolution: SAMPLING_MS });

  const oneThread = async (until: number) => {
    let done = 0;
    for (let i = 0; performance.now() < until; i++) {
      for (const hashes of blockHashesBatch(groups[i % groups.length], options)) index.match(hashes);
      done += CALL;
    }
    return done;
  };

  // Chains that no prompt matches, as other instances compute and evict them meanwhile: each is inserted for one instance
  // and removed when its turn comes again for the next. They are hashed before.
  const fresh = Array.from({ length: 64 }, (_, i) => prompts[i].map((token) => token ^ 1)).map((prompt) =>
    blockHashes(prompt, options),
  );
  let inserted = 0;
  const insertUntil = async (until: number) => {
    const [start, first] = [performance.now(), inserted];
    while (performance.now() < until) {
      const due = first + ((performance.now() - start) / 1000) * INSERTS;
      for (; inserted < due; inserted++) {
        const [turn, chain] = [Math.floor(inserted / fresh.length), fresh[inserted % fresh.length]];
        if (turn > 0) index.remove((turn - 1) % INSTANCES, chain);
        index.insert(turn % INSTANCES, chain);
      }
      await sleep(5);
    }
  };

  const twoWorkers = async (until: number) => {
    let [done, next] = [0, 0];
    const call = async () => {
      while (performance.now() < until) {
        await pool.hashAndMatchBatch(groups[next++ % groups.length], options);
        done += CALL;
      }
    };
    loop.enable();
    await Promise.all([insertUntil(until), ...Array.from({ length: IN_FLIGHT }, call)]);
    loop.disable();
    return done;
  };

  await measured(oneThread);
  await measured(twoWorkers);
  loop.reset();
  const before = inserted;
  const ones: Round[] = [];
  const twos: Round[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    ones.push(await measured(oneThread));
    twos.push(await measured(twoWorkers));
  }
  const baseline = median(ones.map(({ rate }) => rate));
  const name = `hash and match, ${algorithm}, 860 blocks`;
  report(
    {
      name: `${name}: 2 workers`,
      value: median(twos.map(({ rate }) => rate)),
      unit: 'prompts/s',
      baseline,
      peer: '1 thread',
    },
    'higher',
  );
  report(
    { name: `${name}: 1 thread, cores it had`, value: median(ones.map(({ cores }) => cores)), unit: 'cores' },
    'higher',
  );
  report(
    { name: `${name}: 2 workers, cores they had`, value: median(twos.map(({ cores }) => cores)), unit: 'cores' },
    'higher',
  );
  const perPrompt = (rounds: Round[]) => median(rounds.map(({ rate, cores }) => (1e6 * cores) / rate));
  report(
    {
      name: `${name}: CPU a prompt, 2 workers`,
      value: perPrompt(twos),
      unit: 'us',
      baseline: perPrompt(ones),
      peer: '1 thread',
    },
    'lower',
  );
  const blocksPerSecond = (1000 * BLOCKS * (inserted - before)) / (ROUNDS * ROUND_MS);
  report({ name: `${name}: inserted and removed meanwhile`, value: blocksPerSecond, unit: 'blocks/s' }, 'higher');
  report({ name: `${name}: event loop p99`, value: loop.percentile(99) / 1e6, unit: 'ms' }, 'lower');
  await pool.close();
}

/** What a worker costs a small call, and what the pool makes of it. */
async function roundTrip(): Promise<void> {
  const tokens = Uint32Array.from({ length: 16 }, (_, i) => i);
  for (const inline of ['never', 'auto'] as const) {
    const pool = new WorkerPool({ threads: 2, inline });
    const times: number[] = [];
    for (let i = -100; i < EMPTY_CALLS; i++) {
      const start = performance.now();
      await pool.hash(tokens, { blockSize: 16 });
      if (i >= 0) times.push(1000 * (performance.now() - start));
    }
    times.sort((a, b) => a - b);
    const name = `one block, ${inline === 'never' ? 'in a worker' : 'where the pool chooses'}`;
    report({ name: `${name}, p50`, value: times[times.length >> 1], unit: 'us' }, 'lower');
    report({ name: `${name}, p99`, value: times[Math.floor(0.99 * times.length)], unit: 'us' }, 'lower');
    await pool.close();
  }
}

await compare('xxhash_cbor', 16);
await compare('sha256_cbor', 32);
await roundTrip();
