/**
 * The published store workload ("Serving Agentic Workloads at Scale with vLLM x Mooncake", vLLM blog, 6 May 2026):
 * sessions that share 20,000 tokens of instructions, start with 10,000 of their own and add 2,048 of input and 900 of
 * answer in each of 30 turns, sent round robin to the prefill instances of a cluster; 75 sessions for 12 GPUs, that is
 * one prefill instance of four GPUs and one decode instance of eight. What is counted is the share of prompt tokens that
 * need no prefill, with the pool and, from the same run, without it.
 *
 *   prompt ─► instance r mod n ─► index: leading run in its GPU memory, leading run in the pool ─► the longer one is a hit
 *                                   │ then the prompt's blocks are in that GPU memory                (tier gpu, evicts)
 *                                   └ and prompt and answer are in the pool                          (tier cpu, evicts)
 *
 * Every block of a pool is an object allocated in one of the cluster's segments, one per GPU, in turn; when none has
 * room, the policy names objects to free. Blocks of the request being served are pinned in both tiers, as an engine's
 * reference counts and a store's leases do. A chain is used last block first, as vLLM frees it, so that tails go before
 * heads. docs/replay.md derives the default capacities from the published model and hardware.
 */
import { boolean, integer, oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { POLICIES } from '../eviction/registry.js';
import { Cluster, type ClusterFigures } from './cluster.js';
import { conversations } from './workload.js';

/** GPUs of one prefill instance (4) and one decode instance (8). */
export const GPUS_PER_PAIR = 12;
export const MAX_GPUS = 240;

/** Seconds from an answer to the next turn: median and 99th percentile of the published traces are 5.2 and 81.4, as a log-normal. */
const DELAY = 5.2;
const DELAY_SIGMA = Math.log(81.4 / 5.2) / 2.326;

export interface AgenticOptions {
  /** A multiple of 12. */
  gpus: number;
  /** Sessions for each 12 GPUs. */
  sessions: number;
  turns: number;
  /** Tokens: common instructions, first input, input of each later turn, answer. */
  system: number;
  first: number;
  input: number;
  output: number;
  /** Tokens of a block. */
  block: number;
  /** Bytes of KV cache for one token. */
  tokenBytes: number;
  /** GB (1e9 bytes) of a GPU's memory that hold KV cache, and of host memory that it gives to the pool. */
  hbm: number;
  segment: number;
  /** Eviction in the pool; GPU memory is least recently used, as vLLM's. */
  policy: keyof typeof POLICIES;
  /** Milliseconds in which a token of an answer is generated. */
  tokenTime: number;
  /** Whether the decode instance saves the KV of the answers. */
  saveOutput: boolean;
  seed: number;
  signal?: AbortSignal;
  onProgress?: (done: number) => void;
}

export const AGENTIC_DEFAULTS = {
  sessions: 75,
  turns: 30,
  system: 20_000,
  first: 10_000,
  input: 2048,
  output: 900,
  block: 64,
  tokenBytes: 38_000,
  hbm: 16,
  segment: 100,
  tokenTime: 20,
  policy: 'lru',
  saveOutput: true,
  seed: 1,
} satisfies Partial<AgenticOptions>;

export interface AgenticResult extends ClusterFigures {
  gpus: number;
  sessions: number;
  requests: number;
  /** Wall time of the simulation. */
  seconds: number;
}

const LIMITS: Record<string, [number, number]> = {
  gpus: [GPUS_PER_PAIR, MAX_GPUS],
  sessions: [1, 10_000],
  turns: [1, 1000],
  system: [0, 1e7],
  first: [0, 1e7],
  input: [0, 1e7],
  output: [0, 1e7],
  block: [1, 1e6],
  tokenBytes: [1, 1e9],
  tokenTime: [0, 60_000],
  seed: [0, 0xffffffff],
};

const MAX_REQUESTS = 1e6;

/** Milliseconds of work after which the event loop gets a turn. */
const SLICE = 30;

/**
 * Runs the workload on a cluster of `gpus`.
 *
 * @throws ERR_INVALID_ARGUMENT naming the option that is out of range; ERR_ABORTED
 */
export async function agentic(options: Partial<AgenticOptions> & Pick<AgenticOptions, 'gpus'>): Promise<AgenticResult> {
  const settings: AgenticOptions = { ...AGENTIC_DEFAULTS, ...options };
  for (const [name, [min, max]] of Object.entries(LIMITS)) {
    integer(name, settings[name as keyof AgenticOptions], min, max);
  }
  if (settings.gpus % GPUS_PER_PAIR !== 0) {
    throw errors.invalidArgument('gpus', settings.gpus, `a multiple of ${GPUS_PER_PAIR}`);
  }
  for (const name of ['hbm', 'segment'] as const) {
    const size = settings[name];
    if (typeof size !== 'number' || !(size > 0 && size <= 1e5)) {
      throw errors.invalidArgument(name, size, 'GB, a number above 0 and at most 100000');
    }
  }
  boolean('saveOutput', settings.saveOutput);
  oneOf('policy', settings.policy, Object.keys(POLICIES) as AgenticOptions['policy'][]);
  const started = performance.now();
  const pairs = settings.gpus / GPUS_PER_PAIR;
  const sessions = settings.sessions * pairs;
  if (sessions * settings.turns > MAX_REQUESTS) {
    throw errors.invalidArgument('sessions', settings.sessions, `fewer: at most ${MAX_REQUESTS} requests`);
  }
  const turns = conversations({
    ...settings,
    sessions,
    startGap: 0.2,
    delay: DELAY,
    delaySigma: DELAY_SIGMA,
    varied: false,
  });
  const cluster = new Cluster({ ...settings, instances: pairs, sessions });
  let slice = started;
  for (let at = 0; at < turns.length; at++) {
    cluster.serve(turns[at], at % pairs);
    if (settings.signal?.aborted) throw errors.aborted(settings.signal.reason);
    if (performance.now() - slice < SLICE) continue;
    settings.onProgress?.(at / turns.length);
    await new Promise((resolve) => setImmediate(resolve));
    slice = performance.now();
  }
  const { gpus } = settings;
  const requests = turns.length;
  return { gpus, sessions, requests, ...cluster.figures(), seconds: (performance.now() - started) / 1000 };
}
