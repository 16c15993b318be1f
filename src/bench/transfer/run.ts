/** `mooncake-ts bench transfer`: which cells there are, and what they mean. */
import { freemem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { MooncakeError } from '../../core/errors.js';
import { Driver, type Question } from './driver.js';
import type { InitiatorOptions, InitiatorReady } from './initiator.js';
import { LANES, type TargetNames } from './lanes.js';
import { iperf3, PEERS, startPeer } from './peers.js';
import { type Cell, cell, measure, quantile, rate } from './rounds.js';

export const LANE_NAMES = LANES.map(({ name }) => name);
export const PEER_NAMES = [...PEERS.map(({ name }) => name), 'iperf3'];
export const DEFAULT_SIZES = [12, 14, 16, 18, 20, 22, 24].map((bits) => 2 ** bits);
const MAX_BATCH = 128 * 2 ** 20;
const MAX_DESCRIPTORS = 8192;
/** Each side has that much twice, and the peers have theirs. */
const SHARE_OF_MEMORY = 1 / 12;
const SINGLE_READS = 300;
const SMALL_BLOCK = 64;
const LONGEST_MS = 150;

export interface BenchOptions {
  lanes: readonly string[];
  peers: readonly string[];
  sizes: readonly number[];
  total: number;
  verify: readonly ('full' | 'off')[];
  rounds: number;
  timeoutMs: number;
  target?: TargetNames;
  signal: AbortSignal;
  onProgress(text: string): void;
}

export interface Throughput {
  op: 'copy' | 'read' | 'write';
  verify: 'full' | 'off' | 'none';
  /** GB/s by bytes of a block; the reason where there is none. */
  rates: Map<number, number | string>;
}

export interface Contender {
  name: string;
  title: string;
  ours: boolean;
  /** Why it was not measured. */
  unusable?: string;
  throughput: Throughput[];
  /** Microseconds of one read of 4 KiB. */
  latency?: { p50: number; p90: number; p99: number };
  /** Nanoseconds, 8,192 blocks of 64 bytes in a batch. */
  perDescriptor?: number;
}

export interface BenchResult {
  /** Bytes, and GB/s of copying them on one core. */
  total: number;
  memcpy?: number;
  /** GB/s, where asked for. */
  iperf3?: { streams: number; rate: number }[];
  iperf3Why?: string;
  rounds: number;
  sizes: readonly number[];
  contenders: Contender[];
  seconds: number;
}

/** 512 MiB, or what the machine can spare. */
export function defaultTotal(): number {
  const spare = 2 ** Math.floor(Math.log2(Math.max(2 ** 24, freemem() * SHARE_OF_MEMORY)));
  return Math.min(512 * 2 ** 20, spare);
}

export async function benchTransfer(options: BenchOptions): Promise<BenchResult> {
  const started = performance.now();
  const drivers: Driver[] = [];
  try {
    options.onProgress('starting');
    const ours = await startOurs(options);
    drivers.push(ours);
    const { lanes } = ours.ready as unknown as InitiatorReady;
    const plans = LANES.filter(({ name }) => name in lanes).map((spec) => {
      const ops: Throughput['op'][] = spec.kind === 'memory' ? ['copy'] : ['read', 'write'];
      const verify = spec.verifies ? options.verify : (['none'] as const);
      const { unusable } = lanes[spec.name];
      return plan(spec, { driver: unusable === undefined ? ours : undefined, unusable, ops, verify }, options);
    });
    for (const spec of PEERS.filter(({ name }) => options.peers.includes(name))) {
      const found = await reason(() => startPeer(spec, options.total, options.signal));
      if (found.value) drivers.push(found.value);
      const with_ = { driver: found.value, unusable: found.why, ops: ['read', 'write'], verify: ['none'] } as const;
      plans.push(plan(spec, with_, options));
    }
    const memcpy = cell(ours, { lane: 'memcpy', op: 'read', block: options.total, count: 1, runs: 1 });
    const iperf = options.peers.includes('iperf3') ? new Iperf() : undefined;
    await measure([memcpy, ...plans.flatMap(({ cells }) => cells)], {
      rounds: options.rounds,
      longestMs: LONGEST_MS,
      between: iperf ? [() => iperf.measure(1), () => iperf.measure(4)] : [],
      signal: options.signal,
      onProgress: (done) => options.onProgress(`measuring, ${Math.round(done * 100)} %`),
    });
    return {
      total: options.total,
      memcpy: rate(memcpy),
      ...iperf?.result(),
      rounds: options.rounds,
      sizes: options.sizes,
      contenders: plans.map(({ finish }) => finish()),
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await Promise.all(drivers.map((driver) => driver.close()));
  }
}

export function startOurs(options: Pick<BenchOptions, 'total' | 'lanes' | 'target' | 'timeoutMs' | 'signal'>) {
  const { total, target, timeoutMs } = options;
  const settings: InitiatorOptions = { total, lanes: [...options.lanes], target, timeoutMs };
  return Driver.start({
    name: 'mooncake-ts',
    command: process.execPath,
    args: [fileURLToPath(new URL('./initiator.js', import.meta.url)), JSON.stringify(settings)],
    signal: options.signal,
  });
}

interface Plan {
  cells: Cell[];
  finish(): Contender;
}

interface PlanOptions {
  driver?: Driver;
  unusable?: string;
  ops: readonly Throughput['op'][];
  verify: readonly Throughput['verify'][];
}

function plan(
  spec: { name: string; title: string; maxCount?: number },
  { driver, unusable, ops, verify }: PlanOptions,
  { sizes, total }: BenchOptions,
): Plan {
  const contender = { name: spec.name, title: spec.title, ours: LANE_NAMES.includes(spec.name), unusable };
  if (driver === undefined) return { cells: [], finish: () => ({ ...contender, throughput: [] }) };
  const most = Math.min(spec.maxCount ?? MAX_DESCRIPTORS, MAX_DESCRIPTORS);
  const question = (op: Throughput['op'], rest: Pick<Question, 'block' | 'count' | 'runs'> & Partial<Question>) =>
    cell(driver, { op: op === 'write' ? 'write' : 'read', lane: spec.name, ...rest });
  const rows = ops.flatMap((op) =>
    verify.map((mode) => ({
      op,
      verify: mode,
      cells: sizes.map((block) => {
        const count = Math.max(1, Math.min(most, Math.floor(Math.min(total, MAX_BATCH) / block)));
        return question(op, { block, count, runs: 1, verify: mode === 'off' ? 'off' : 'full' });
      }),
    })),
  );
  const copies = ops.includes('copy');
  const latency = question(ops[0], { block: 4096, count: 64, runs: SINGLE_READS, single: true });
  const small = copies ? question('copy', { block: SMALL_BLOCK, count: MAX_DESCRIPTORS, runs: 1 }) : undefined;
  return {
    cells: [...rows.flatMap(({ cells }) => cells), latency, ...(small ? [small] : [])],
    finish: () => ({
      ...contender,
      throughput: rows.map(({ op, verify, cells }) => ({
        op,
        verify,
        rates: new Map(cells.map((one, at) => [sizes[at], rate(one) ?? one.why ?? 'not measured'])),
      })),
      ...(latency.times.length > 0 && { latency: percentiles(latency.times) }),
      ...(small && small.times.length > 0 && { perDescriptor: quantile(small.times, 0.5) / small.question.count }),
    }),
  };
}

function percentiles(nanoseconds: readonly number[]): { p50: number; p90: number; p99: number } {
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((q) => quantile(nanoseconds, q) / 1000);
  return { p50, p90, p99 };
}

/** iperf3 with some numbers of streams; what fails once is not tried again. */
class Iperf {
  readonly #rates = new Map<number, number[]>();
  #why?: string;

  async measure(streams: number): Promise<void> {
    if (this.#why !== undefined) return;
    const { value, why } = await reason(() => iperf3(streams));
    if (value === undefined) this.#why = why;
    else this.#rates.set(streams, [...(this.#rates.get(streams) ?? []), value]);
  }

  result(): Pick<BenchResult, 'iperf3' | 'iperf3Why'> {
    const figures = [...this.#rates].map(([streams, rates]) => ({ streams, rate: quantile(rates, 0.5) }));
    return { iperf3: figures, ...(this.#why !== undefined && { iperf3Why: this.#why }) };
  }
}

/** What it gives, or why it cannot; throws ERR_ABORTED alone. */
async function reason<T>(attempt: () => Promise<T>): Promise<{ value?: T; why?: string }> {
  try {
    return { value: await attempt() };
  } catch (error) {
    if (!(error instanceof MooncakeError) || error.code === 'ERR_ABORTED') throw error;
    return { why: error.message };
  }
}
