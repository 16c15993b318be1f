/**
 * Offset allocator. The workloads are those of Mooncake's own benchmarks (mooncake-store/benchmarks):
 *
 * - churn: allocator_bench, random sizes from 1 KiB to 64 MiB in a 2 GiB pool that is full; where a size does not fit,
 *   random allocations are freed until it does. A figure is one allocation with the frees and failures it took.
 * - fill: allocation_strategy_bench, allocations that are never freed, over 1 or 16 segments chosen at random.
 *
 * MOONCAKE_ALLOCATOR_BENCH=path/to/allocator_bench (Mooncake's build, target allocator_bench) runs the peer's churn in
 * the same run; without it the baselines are what Mooncake publishes, measured on another machine.
 */
import { execFileSync } from 'node:child_process';
import { AllocatorSet, OffsetAllocator } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const GiB = 2 ** 30;
const MiB = 2 ** 20;
/** Million allocations a second: over one segment (953 ns each) and 16, and allocator_bench_result.md (145.6 ns). */
const PUBLISHED = { fill: 1.0, fill16: 0.692, churn: 1000 / 145.6, utilisation: 0.8416 };
const RUNS = 7;

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

interface Churn {
  nanoseconds: number;
  /** Mean share of the pool in use, and when the first size did not fit. */
  utilisation: number;
  firstFailure: number;
}

function churn(segments: number, min: number, max: number, count: number, seed: number): Churn {
  const next = random(seed);
  const pool = (2 * GiB) / segments;
  const set = new AllocatorSet({ maxSegments: segments });
  for (let i = 0; i < segments; i++) set.addSegment({ length: pool });
  const sizes = new Float64Array(count).map(() => min + Math.floor(next() * (max - min + 1)));
  const picks = new Float64Array(count).map(next);
  const room = Math.floor(pool / min);
  const handles = new Float64Array(segments * room);
  const held = new Float64Array(segments * room);
  const live = new Uint32Array(segments);
  // One loop and plain variables: a number that a closure changes would cost an allocation by JavaScript each time.
  let used = 0;
  let total = 0;
  let pick = 0;
  let firstFailure = 0;
  let warmUp = 0;
  for (let filled = 0; filled < 2 * GiB; warmUp++) filled += sizes[warmUp];
  let start = 0n;
  for (let i = -warmUp; i < count; i++) {
    if (i === 0) start = process.hrtime.bigint();
    const size = sizes[i < 0 ? i + warmUp : i];
    const segment = segments === 1 ? 0 : Math.floor(picks[++pick % count] * segments);
    const first = segment * room;
    let got = set.allocate(segment, size);
    for (; !got; got = set.allocate(segment, size)) {
      if (firstFailure === 0) firstFailure = used / (2 * GiB);
      const gone = first + Math.floor(picks[++pick % count] * live[segment]);
      const last = first + --live[segment];
      set.free(handles[gone]);
      used -= held[gone];
      handles[gone] = handles[last];
      held[gone] = held[last];
    }
    const at = first + live[segment]++;
    handles[at] = got.handle;
    held[at] = size;
    used += size;
    if (i >= 0) total += used;
  }
  const nanoseconds = Number(process.hrtime.bigint() - start) / count;
  return { nanoseconds, utilisation: total / count / (2 * GiB), firstFailure };
}

/** Nanoseconds of an allocation that is never freed: 100,000 of them over `segments`, each of them large enough. */
function fill(segments: number, seed: number): number {
  const count = 100_000;
  const next = random(seed);
  const set = new AllocatorSet({ maxSegments: segments });
  for (let i = 0; i < segments; i++) set.addSegment({ length: 1024 * GiB, base: i * 1024 * GiB });
  const sizes = new Float64Array(count).map(() => 1024 + Math.floor(next() * MiB));
  const where = new Uint32Array(count).map(() => Math.floor(next() * segments));
  const kept = new Float64Array(count);
  const start = process.hrtime.bigint();
  for (let i = 0; i < count; i++) kept[i] = set.allocate(where[i], sizes[i])!.handle;
  return Number(process.hrtime.bigint() - start) / count;
}

/** Nanoseconds of a random replacement (free one, allocate one) among 50,000 live, one by one or in batches of 1,000. */
function replace(batch: boolean, seed: number): number {
  const count = 100_000;
  const live = 50_000;
  const step = 1000;
  const next = random(seed);
  const allocator = new OffsetAllocator({ length: 1024 * GiB });
  const sizes = new Float64Array(count).map(() => 1024 + Math.floor(next() * MiB));
  const { handles } = allocator.allocateMany(sizes.subarray(0, live));
  const order = Uint32Array.from({ length: live }, (_, i) => i);
  for (let i = live - 1; i > 0; i--) {
    const other = Math.floor(next() * (i + 1));
    [order[i], order[other]] = [order[other], order[i]];
  }
  const going = new Float64Array(step);
  const into = { offsets: new Float64Array(step), handles: new Float64Array(step) };
  const start = process.hrtime.bigint();
  if (batch) {
    for (let i = 0; i < count; i += step) {
      const first = i % live;
      for (let k = 0; k < step; k++) going[k] = handles[order[first + k]];
      allocator.freeMany(going);
      allocator.allocateMany(sizes.subarray(i, i + step), into);
      for (let k = 0; k < step; k++) handles[order[first + k]] = into.handles[k];
    }
  } else {
    for (let i = 0; i < count; i++) {
      const at = order[i % live];
      allocator.free(handles[at]);
      handles[at] = allocator.allocate(sizes[i])!.handle;
    }
  }
  return Number(process.hrtime.bigint() - start) / count;
}

const medianOf = (measure: (seed: number) => number) =>
  median(Array.from({ length: RUNS + 2 }, (_, run) => measure(run + 1)).slice(2));
const millions = (nanoseconds: number) => 1000 / nanoseconds;

/** Mooncake's allocator_bench, random sizes: nanoseconds and mean utilisation. */
function peerChurn(): { nanoseconds: number; utilisation: number } | undefined {
  const path = process.env.MOONCAKE_ALLOCATOR_BENCH;
  if (!path) return undefined;
  const output = execFileSync(path, { encoding: 'utf8' });
  const section = output.slice(output.indexOf('Random Size'));
  const utilisation = Number(/util ratio [^:]*: (?:[\d.]+ \/ ){5}([\d.]+)/.exec(section)?.[1]);
  const nanoseconds = Number(/avg alloc time: ([\d.]+) ns/.exec(section)?.[1]);
  if (!(nanoseconds > 0)) throw new Error(`MOONCAKE_ALLOCATOR_BENCH=${path}: no random-size result in its output`);
  return { nanoseconds, utilisation };
}

const runs = Array.from({ length: RUNS }, (_, run) => churn(1, 1024, 64 * MiB, 300_000, run + 1));
const peer = peerChurn();
const name = peer ? 'Mooncake, this run' : 'Mooncake, published';
if (!peer) missing('alloc churn of Mooncake in this run', 'MOONCAKE_ALLOCATOR_BENCH names no binary');
report(
  {
    name: 'alloc churn, full 2 GiB pool, 1 KiB to 64 MiB',
    value: millions(median(runs.map((run) => run.nanoseconds))),
    unit: 'M alloc/s',
    baseline: peer ? millions(peer.nanoseconds) : PUBLISHED.churn,
    peer: name,
  },
  'higher',
);
report(
  {
    name: 'alloc churn, mean utilisation',
    value: median(runs.map((run) => run.utilisation)),
    unit: 'of pool',
    baseline: peer?.utilisation ?? PUBLISHED.utilisation,
    peer: name,
  },
  'higher',
);
report(
  {
    name: 'alloc churn, utilisation at first failure',
    value: median(runs.map((run) => run.firstFailure)),
    unit: 'of pool',
  },
  'higher',
);
report(
  {
    name: 'alloc churn, 16 segments, 1 KiB to 1 MiB',
    value: millions(medianOf((seed) => churn(16, 1024, MiB, 200_000, seed).nanoseconds)),
    unit: 'M alloc/s',
  },
  'higher',
);
report(
  {
    name: 'alloc fill, 1 segment',
    value: millions(medianOf((seed) => fill(1, seed))),
    unit: 'M alloc/s',
    baseline: PUBLISHED.fill,
    peer: 'Mooncake, published',
  },
  'higher',
);
report(
  {
    name: 'alloc fill, 16 segments',
    value: millions(medianOf((seed) => fill(16, seed))),
    unit: 'M alloc/s',
    baseline: PUBLISHED.fill16,
    peer: 'Mooncake, published',
  },
  'higher',
);
report(
  {
    name: 'alloc replace at random, 50,000 live',
    value: millions(medianOf((seed) => replace(false, seed))),
    unit: 'M free+alloc/s',
  },
  'higher',
);
report(
  {
    name: 'alloc replace at random, batches of 1,000',
    value: millions(medianOf((seed) => replace(true, seed))),
    unit: 'M free+alloc/s',
  },
  'higher',
);
