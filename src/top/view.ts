/**
 * What two samples of a master say together: levels from the later one, rates from the difference. A master that was started in
 * between has counters that went back; then its rates are since its start.
 */
import type { Exposition, Series } from './exposition.js';
import type { Sample, SegmentSample } from './sample.js';

export interface CallView {
  method: string;
  perSecond: number;
  failuresPerSecond: number;
  /** Milliseconds; null where the master does not say, or nothing was called. */
  p50Ms: number | null;
  p99Ms: number | null;
}

export interface SegmentView extends SegmentSample {
  /** Bytes a second. */
  change: number;
}

export interface View {
  master: string;
  restarted: boolean;
  clients: number;
  objects: number;
  usedBytes: number;
  capacityBytes: number;
  /** Of what was asked for between the samples; null: nothing was. */
  hitRate: number | null;
  /** Since the start. */
  totalHitRate: number | null;
  lookupsPerSecond: number;
  evictedPerSecond: number;
  evictedBytesPerSecond: number;
  /** Misses a second, by reason; empty where the master does not say. */
  misses: Record<string, number>;
  /** Misses since the start, by reason. */
  totalMisses: Record<string, number>;
  callsPerSecond: number;
  /** The busiest first. */
  calls: CallView[];
  /** The fastest growing or shrinking first, then the fullest. */
  segments: SegmentView[];
  /** Milliseconds, 99 in 100; null on stock. */
  delayMs: number | null;
  residentBytes: number | null;
}

const MISSES = 'mooncake_misses_total';
const CALLS = 'mooncake_rpc_calls_total';
const FAILURES = 'mooncake_rpc_call_failures_total';
const SECONDS = 'mooncake_rpc_call_seconds_bucket';
const STOCK_CALLS = /^master_(.+)_requests_total$/;

export function viewOf(master: string, before: Sample, now: Sample): View {
  const { metrics } = now;
  const restarted = wasRestarted(before.metrics, metrics);
  const then = restarted ? undefined : before.metrics;
  const uptime = metrics.value('process_start_time_seconds');
  const interval = (now.at - before.at) / 1000;
  const seconds = Math.max(0.001, restarted && uptime ? Math.min(interval, Date.now() / 1000 - uptime) : interval);
  const grown = (name: string) => Math.max(0, (metrics.value(name) ?? 0) - (then?.value(name) ?? 0));
  // Stock counts reads alone; ours counts also whether keys exist.
  const [asked, found] =
    metrics.value('mooncake_lookups_total') === undefined
      ? ['total_get_nums_', 'valid_get_nums_']
      : ['mooncake_lookups_total', 'mooncake_hits_total'];
  const share = (hits: number, lookups: number) => (lookups > 0 ? hits / lookups : null);
  const calls = callsOf(metrics, then, seconds);
  const delay = metrics.all('mooncake_event_loop_delay_seconds').find(({ labels }) => labels.quantile === '0.99');
  return {
    master,
    restarted,
    clients: metrics.value('master_active_clients') ?? 0,
    objects: metrics.value('master_key_count') ?? 0,
    usedBytes: metrics.value('master_allocated_bytes') ?? 0,
    capacityBytes: metrics.value('master_total_capacity_bytes') ?? 0,
    hitRate: share(grown(found), grown(asked)),
    totalHitRate: share(metrics.value(found) ?? 0, metrics.value(asked) ?? 0),
    lookupsPerSecond: grown(asked) / seconds,
    evictedPerSecond: grown('master_evicted_key_count') / seconds,
    evictedBytesPerSecond: grown('master_evicted_size_bytes') / seconds,
    misses: rates(metrics, then, MISSES, 'reason', seconds),
    totalMisses: Object.fromEntries(metrics.all(MISSES).map(({ labels, value }) => [labels.reason, value])),
    callsPerSecond: calls.reduce((sum, { perSecond }) => sum + perSecond, 0),
    calls,
    segments: segmentsOf(restarted ? undefined : before, now, seconds),
    delayMs: delay ? delay.value * 1000 : null,
    residentBytes: metrics.value('process_resident_memory_bytes') ?? null,
  };
}

/** Its start says so, or a counter that went back. */
function wasRestarted(before: Exposition, now: Exposition): boolean {
  const start = 'process_start_time_seconds';
  if (now.value(start) !== undefined) return now.value(start) !== before.value(start);
  return [...before.names].some((name) => STOCK_CALLS.test(name) && (now.value(name) ?? 0) < before.value(name)!);
}

function rates(
  metrics: Exposition,
  before: Exposition | undefined,
  name: string,
  label: string,
  seconds: number,
): Record<string, number> {
  const old = new Map(before?.all(name).map(({ labels, value }) => [labels[label], value]));
  return Object.fromEntries(
    metrics.all(name).map(({ labels, value }) => {
      const key = labels[label];
      return [key, Math.max(0, value - (old.get(key) ?? 0)) / seconds];
    }),
  );
}

function callsOf(metrics: Exposition, before: Exposition | undefined, seconds: number): CallView[] {
  const own = rates(metrics, before, CALLS, 'method', seconds);
  const failures = rates(metrics, before, FAILURES, 'method', seconds);
  const calls = Object.entries(own).map(([method, perSecond]) => {
    const of = (all: Exposition | undefined) =>
      all?.all(SECONDS).filter(({ labels }) => labels.method === method) ?? [];
    const buckets = difference(of(metrics), of(before));
    const at = (share: number) => quantile(buckets, share);
    return { method, perSecond, failuresPerSecond: failures[method] ?? 0, p50Ms: at(0.5), p99Ms: at(0.99) };
  });
  // Ours has the stock names as well, but its own say more.
  if (calls.length === 0) calls.push(...stockCalls(metrics, before, seconds));
  return calls.sort((a, b) => b.perSecond - a.perSecond || a.method.localeCompare(b.method));
}

function stockCalls(metrics: Exposition, before: Exposition | undefined, seconds: number): CallView[] {
  return [...metrics.names].flatMap((name) => {
    const method = STOCK_CALLS.exec(name)?.[1];
    if (!method || metrics.value(name) === 0) return [];
    const rate = (each: string) => Math.max(0, (metrics.value(each) ?? 0) - (before?.value(each) ?? 0)) / seconds;
    const failuresPerSecond = rate(`master_${method}_failures_total`);
    return { method, perSecond: rate(name), failuresPerSecond, p50Ms: null, p99Ms: null };
  });
}

interface Bucket {
  /** Seconds up to which it goes. */
  bound: number;
  /** Calls at or below it. */
  count: number;
}

function difference(now: readonly Series[], before: readonly Series[]): Bucket[] {
  const old = new Map(before.map(({ labels, value }) => [labels.le, value]));
  return now.map(({ labels, value }) => ({
    bound: labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le),
    count: value - (old.get(labels.le) ?? 0),
  }));
}

/** Milliseconds; within a bucket calls count as spread evenly, as Prometheus' histogram_quantile takes them. */
export function quantile(buckets: readonly Bucket[], share: number): number | null {
  const total = buckets.at(-1)?.count ?? 0;
  if (total <= 0) return null;
  const wanted = share * total;
  const at = buckets.findIndex(({ count }) => count >= wanted);
  const { bound: low, count: below } = buckets[at - 1] ?? { bound: 0, count: 0 };
  const { bound, count } = buckets[at];
  if (!Number.isFinite(bound)) return low * 1000;
  return (low + ((bound - low) * (wanted - below)) / Math.max(1, count - below)) * 1000;
}

function segmentsOf(before: Sample | undefined, { segments }: Sample, seconds: number): SegmentView[] {
  const old = new Map(before?.segments.map(({ id, usedBytes }) => [id, usedBytes]));
  const fill = ({ usedBytes, capacityBytes }: SegmentView) => (capacityBytes > 0 ? usedBytes / capacityBytes : 0);
  return segments
    .map((one) => ({ ...one, change: (one.usedBytes - (old.get(one.id) ?? one.usedBytes)) / seconds }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || fill(b) - fill(a));
}
