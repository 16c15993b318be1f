/**
 * What the calls of each method came to: how many, how many failed, how long they took; of batches also their items. Counted from
 * the answers, so nothing in the service knows of it. Stock has names for about half of the methods, which are its own here too.
 */
import { labelled, type MetricsText } from '../../metrics/text.js';
import type { Packed } from '../../rpc/batches.js';

/** Seconds, up to which a call took; above the last: +Inf. */
const BOUNDS = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10];

/** A counter of the stock master: the middle of its metrics' names, master_<this>_requests_total. */
interface StockName {
  name: string;
  /** Every item of a batch counts as a call. */
  each?: boolean;
}

/** By method; several may share one. Observed on 0.3.13. */
const STOCK_NAMES: Readonly<Record<string, StockName>> = {
  ...named('ExistKey', 'PutStart', 'PutEnd', 'PutRevoke', 'GetReplicaList', 'GetReplicaListByRegex'),
  ...named('Remove', 'RemoveByRegex', 'RemoveAll', 'MountSegment', 'UnmountSegment', 'Ping'),
  ...named('CopyStart', 'CopyEnd', 'CopyRevoke', 'MoveStart', 'MoveEnd', 'MoveRevoke', 'EvictDiskReplica'),
  ...named('CreateCopyTask', 'CreateMoveTask', 'QueryTask', 'FetchTasks'),
  ...named('BatchExistKey', 'BatchQueryIp', 'BatchReplicaClear', 'BatchGetReplicaList'),
  ...named('BatchPutStart', 'BatchPutEnd', 'BatchPutRevoke'),
  UpsertStart: { name: 'put_start' },
  UpsertEnd: { name: 'put_end' },
  UpsertRevoke: { name: 'put_revoke' },
  BatchUpsertStart: { name: 'batch_put_start' },
  BatchUpsertEnd: { name: 'batch_put_end' },
  BatchUpsertRevoke: { name: 'batch_put_revoke' },
  BatchRemove: { name: 'remove', each: true },
  BatchEvictDiskReplica: { name: 'evict_disk_replica' },
  ReMountSegment: { name: 'remount_segment' },
  GracefulUnmountSegment: { name: 'unmount_segment' },
  MountNoFSegment: { name: 'mount_nof_segment' },
  ReMountNoFSegment: { name: 'remount_nof_segment' },
  UnmountNoFSegment: { name: 'unmount_nof_segment' },
  DynamicReplicaCopyStart: { name: 'copy_start' },
  DynamicReplicaCopyEnd: { name: 'copy_end' },
  DynamicReplicaCopyRevoke: { name: 'copy_revoke' },
  MarkTaskToComplete: { name: 'update_task' },
};

function named(...methods: string[]): Record<string, StockName> {
  const snake = (name: string) => name.replace(/(?!^)[A-Z]/g, '_$&').toLowerCase();
  return Object.fromEntries(methods.map((method) => [method, { name: snake(method) }]));
}

/** As stock counts: a batch failed when all of its items did, also when it has none. */
class Counts {
  requests = 0;
  failures = 0;
  partialSuccesses = 0;
  items = 0;
  failedItems = 0;

  add(items: number, failed: number): void {
    this.requests++;
    this.items += items;
    this.failedItems += failed;
    if (failed === items) this.failures++;
    else if (failed > 0) this.partialSuccesses++;
  }

  addEach(items: number, failed: number): void {
    this.requests += items;
    this.failures += failed;
  }
}

class Calls extends Counts {
  seconds = 0;
  readonly buckets = new Float64Array(BOUNDS.length + 1);
  readonly stock?: Counts;
  readonly #each: boolean;

  constructor(stock?: Counts, each = false) {
    super();
    this.stock = stock;
    this.#each = each;
  }

  observe(items: number, failed: number, seconds: number): void {
    this.add(items, failed);
    if (this.#each) this.stock!.addEach(items, failed);
    else this.stock?.add(items, failed);
    this.seconds += seconds;
    let at = 0;
    while (at < BOUNDS.length && seconds > BOUNDS[at]) at++;
    this.buckets[at]++;
  }
}

export class CallFigures {
  readonly #methods = new Map<string, Calls>();
  readonly #stock = new Map(Object.values(STOCK_NAMES).map(({ name }) => [name, new Counts()]));

  /** `result` as the method's handler gave it; undefined where it threw. */
  observe(method: string, args: unknown, result: unknown, milliseconds: number): void {
    let calls = this.#methods.get(method);
    if (!calls) {
      const stock = STOCK_NAMES[method];
      calls = new Calls(stock && this.#stock.get(stock.name), stock?.each);
      this.#methods.set(method, calls);
    }
    const seconds = milliseconds / 1000;
    if (result instanceof Int32Array) calls.observe(result.length, negatives(result), seconds);
    else if (Array.isArray(result)) calls.observe(result.length, refusals(result), seconds);
    else if (method in ANSWERED) {
      const { asked, answered } = ANSWERED[method](args, result);
      calls.observe(asked, asked - answered, seconds);
    } else calls.observe(1, isRefusal(result) ? 1 : 0, seconds);
  }

  write(text: MetricsText): void {
    for (const [name, counts] of this.#stock) {
      const counter = (what: string, help: string, value: number) =>
        text.metric(`master_${name}_${what}_total`, 'counter', help, value);
      counter('requests', `Calls of ${name}`, counts.requests);
      counter('failures', 'Those that failed', counts.failures);
      if (!name.startsWith('batch_')) continue;
      counter('partial_successes', 'Those of which a part failed', counts.partialSuccesses);
      counter('items', 'Items that they were about', counts.items);
      counter('failed_items', 'Items that failed', counts.failedItems);
    }
    this.#writeReads(text);
    const ofAll = (field: 'requests' | 'failures') =>
      labelled('method', Object.fromEntries([...this.#methods].map(([method, calls]) => [method, calls[field]])));
    text.metric('mooncake_rpc_calls_total', 'counter', 'Calls, by method', ofAll('requests'));
    text.metric('mooncake_rpc_call_failures_total', 'counter', 'Calls that failed, by method', ofAll('failures'));
    const series = [...this.#methods].map(([method, { buckets, seconds }]) => ({
      labels: { method },
      counts: buckets,
      sum: seconds,
    }));
    text.histograms('mooncake_rpc_call_seconds', 'Time of calls in the master, by method', BOUNDS, series);
  }

  /** Stock counts keys whose copies were asked for, and those of them that had some. */
  #writeReads(text: MetricsText): void {
    const reads = [this.#stock.get('get_replica_list')!, this.#stock.get('batch_get_replica_list')!];
    const sum = (field: 'items' | 'failedItems') => reads.reduce((total, counts) => total + counts[field], 0);
    text.metric('total_get_nums_', 'counter', 'Keys whose copies were asked for', sum('items'));
    text.metric('valid_get_nums_', 'counter', 'Those that had some', sum('items') - sum('failedItems'));
  }
}

/** Batches whose answer holds those items alone that were found. */
const ANSWERED: Readonly<Record<string, (args: unknown, result: unknown) => { asked: number; answered: number }>> = {
  BatchQueryIp: (args, result) => ({
    asked: (args as { clients: unknown[] }).clients.length,
    answered: (result as { value?: Map<unknown, unknown> } | undefined)?.value?.size ?? 0,
  }),
  BatchReplicaClear: (args, result) => ({
    asked: (args as { keys: Packed }).keys.offsets.length - 1,
    answered: ((result as { value?: Packed } | undefined)?.value?.offsets.length ?? 1) - 1,
  }),
};

const isRefusal = (result: unknown) =>
  result === undefined || (typeof result === 'object' && result !== null && 'ok' in result && result.ok === false);

function refusals(results: readonly unknown[]): number {
  let count = 0;
  for (const one of results) if (isRefusal(one)) count++;
  return count;
}

function negatives(statuses: Int32Array): number {
  let count = 0;
  for (let i = 0; i < statuses.length; i++) if (statuses[i] < 0) count++;
  return count;
}
