/**
 * The stock master's flags, each with what it means here: an option of ours, nothing (threads of a thread pool that we do not
 * have), or a refusal where it asks for what this version has not. Names and defaults: Mooncake's master 0.3.13.
 */
import { networkInterfaces } from 'node:os';
import { errors } from '../core/errors.js';
import { STRATEGIES } from '../master/options.js';
import type { MooncakeMasterOptions } from '../master/server/master.js';

type Apply = (value: string, options: MooncakeMasterOptions, flag: string) => void;

export interface Flag {
  /** As people type it, without dashes. */
  name: string;
  /** With its default in parentheses at the end, and after a semicolon what else is to be said of it. */
  help: string;
  apply: Apply;
  /** What switches it off, so that a flag of something we do not have may be given as long as it asks for nothing. */
  hidden?: boolean;
}

function whole(flag: string, value: string, max: number): number {
  const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number <= max)) throw errors.invalidArgument(`--${flag}`, value, `an integer from 0 to ${max}`);
  return number;
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** "10000" in the flag's own unit, or "5s", "30m". */
function milliseconds(flag: string, value: string, unit: number): number {
  const match = /^(\d{1,12})(ms|s|m|h)?$/.exec(value);
  if (!match) throw errors.invalidArgument(`--${flag}`, value, 'a duration such as 10000, 500ms, 5s or 30m');
  return Number(match[1]) * (match[2] ? UNITS[match[2]] : unit);
}

function ratio(flag: string, value: string): number {
  const number = Number(value);
  if (value.trim() === '' || !(number > 0 && number <= 1)) {
    throw errors.invalidArgument(`--${flag}`, value, 'a number above 0, at most 1');
  }
  return number;
}

function truth(flag: string, value: string): boolean {
  if (/^(true|1|yes|on)$/i.test(value)) return true;
  if (/^(false|0|no|off)$/i.test(value)) return false;
  throw errors.invalidArgument(`--${flag}`, value, 'true or false');
}

function addressOf(name: string, flag: string): string {
  const found = networkInterfaces()[name]?.find(({ family }) => family === 'IPv4');
  if (found) return found.address;
  throw errors.invalidArgument(`--${flag}`, name, 'a network interface with an IPv4 address');
}

const port = (value: string, flag: string) => whole(flag, value, 65_535);

/** A switch that may be off, and must not be on. */
const without = (name: string, what: string): Flag => ({
  name,
  help: what,
  hidden: true,
  apply: (value, _, flag) => {
    if (truth(flag, value)) throw errors.notSupported(`--${flag}`, `${what}: this version does not have it`);
  },
});

/** A setting of something that is decided otherwise here, or only matters with what is refused above. */
const ignored = (name: string): Flag => ({ name, help: 'accepted, without effect', hidden: true, apply: () => {} });

const wholes = (flag: string, value: string) => whole(flag, value, Number.MAX_SAFE_INTEGER);

/** Stock flags of what is refused above, of Google's logging, and of threads. */
const OTHERS = [
  ...['max_threads', 'rpc_enable_tcp_no_delay', 'cxl_path', 'cxl_size', 'pod_name', 'pod_namespace'],
  ...['dynamic_replication_admission_qps_threshold', 'dynamic_replication_heat_window_seconds'],
  ...['dynamic_replication_max_memory_replicas', 'global_file_segment_size', 'batch_oplog_retry_timeout_sec'],
  ...['oplog_batch_max_entries', 'oplog_poll_interval_ms', 'kv_events_additional_salt', 'kv_events_block_size'],
  ...['kv_events_dp_rank', 'kv_events_emit_legacy_compat', 'kv_events_emit_object_key', 'kv_events_lora_name'],
  ...['kv_events_model_name', 'kv_events_tenant_id', 'nof_eviction_high_watermark_ratio', 'nof_eviction_ratio'],
  ...['nof_heartbeat_failures_threshold', 'nof_heartbeat_interval_sec', 'nof_heartbeat_probe_timeout_ms'],
  ...['snapshot_backup_dir', 'snapshot_catalog_backend_connstring', 'snapshot_catalog_backend_type'],
  ...['snapshot_catalog_store_connstring', 'snapshot_catalog_store_type', 'snapshot_child_timeout_seconds'],
  ...['snapshot_object_store_type', 'snapshot_payload_backend_type', 'snapshot_payload_store_type'],
  ...['v', 'alsologtostderr', 'colorlogtostderr', 'log_dir', 'log_prefix', 'logbuflevel', 'logbufsecs', 'logtostderr'],
  ...['max_log_size', 'minloglevel', 'stderrthreshold', 'stop_logging_if_full_disk', 'vmodule'],
];

export const FLAGS: readonly Flag[] = [
  { name: 'port', help: 'the same as rpc_port', apply: (value, to, flag) => void (to.port = port(value, flag)) },
  { name: 'rpc_port', help: 'RPC port (50051)', apply: (value, to, flag) => void (to.port = port(value, flag)) },
  {
    name: 'rpc_address',
    help: 'address to listen on (127.0.0.1; stock listens on 0.0.0.0)',
    apply: (value, to) => void (to.host = value),
  },
  {
    name: 'rpc_interface',
    help: 'network interface whose IPv4 address to listen on, instead of rpc_address',
    apply: (value, to, flag) => {
      if (value !== '') to.host = addressOf(value, flag);
    },
  },
  {
    name: 'metrics_host',
    help: 'address of the HTTP port of metrics (that of the RPC)',
    apply: (value, to) => void (to.adminHost = value),
  },
  {
    name: 'metrics_port',
    help: 'HTTP port of metrics, health and queries (9003)',
    apply: (value, to, flag) => void (to.adminPort = port(value, flag)),
  },
  {
    name: 'enable_metric_reporting',
    help: 'serve that port (true)',
    apply: (value, to, flag) => void (to.admin = truth(flag, value)),
  },
  {
    name: 'enable_http_metadata_server',
    help: 'serve the HTTP metadata server as well (false)',
    apply: (value, to, flag) => {
      if (truth(flag, value)) to.metadataPort ??= 8080;
      else to.metadataPort = undefined;
    },
  },
  {
    name: 'http_metadata_server_port',
    help: 'its port (8080)',
    apply: (value, to, flag) => {
      if (to.metadataPort !== undefined) to.metadataPort = port(value, flag);
      else port(value, flag);
    },
  },
  {
    name: 'http_metadata_server_host',
    help: 'its address (that of the RPC)',
    apply: (value, to) => void (to.metadataHost = value),
  },
  {
    name: 'default_kv_lease_ttl',
    help: 'how long a lookup or read protects an object (10000 ms)',
    apply: (value, to, flag) => void (to.leaseTtlMs = milliseconds(flag, value, 1)),
  },
  {
    name: 'default_kv_soft_pin_ttl',
    help: 'how long a soft pin lasts (30m)',
    apply: (value, to, flag) => void (to.softPinTtlMs = milliseconds(flag, value, 1)),
  },
  {
    name: 'max_kv_soft_pin_ttl',
    help: 'longest soft pin (24h)',
    apply: (value, to, flag) => void (to.maxSoftPinTtlMs = milliseconds(flag, value, 1)),
  },
  {
    name: 'allow_evict_soft_pinned_objects',
    help: 'soft-pinned objects go when nothing else can (true)',
    apply: (value, to, flag) => void (to.allowEvictSoftPinned = truth(flag, value)),
  },
  {
    name: 'eviction_ratio',
    help: 'share of the objects that eviction frees (0.05)',
    apply: (value, to, flag) => void (to.evictionRatio = ratio(flag, value)),
  },
  {
    name: 'eviction_high_watermark_ratio',
    help: 'share of the space from which eviction runs (0.90)',
    apply: (value, to, flag) => void (to.evictionHighWatermark = ratio(flag, value)),
  },
  {
    name: 'client_ttl',
    help: 'silence after which a client is gone (10 s)',
    apply: (value, to, flag) => void (to.clientTtlMs = milliseconds(flag, value, 1000)),
  },
  {
    name: 'put_start_discard_timeout_sec',
    help: 'age from which an unfinished put may be preempted (30 s)',
    apply: (value, to, flag) => void (to.putDiscardMs = milliseconds(flag, value, 1000)),
  },
  {
    name: 'put_start_release_timeout_sec',
    help: 'age until which its space is kept back (600 s)',
    apply: (value, to, flag) => void (to.putReleaseMs = milliseconds(flag, value, 1000)),
  },
  {
    name: 'allocation_strategy',
    help: `${STRATEGIES.join(', ')} (random)`,
    apply: (value, to, flag) => {
      const strategy = STRATEGIES.find((one) => one === value);
      if (!strategy) throw errors.notSupported(`--${flag}=${value}`, `use one of ${STRATEGIES.join(', ')}`);
      to.allocationStrategy = strategy;
    },
  },
  {
    name: 'max_total_finished_tasks',
    help: 'tasks that have ended and are remembered (10000)',
    apply: (value, to, flag) => void (to.maxFinishedTasks = wholes(flag, value)),
  },
  {
    name: 'max_total_pending_tasks',
    help: 'tasks that may wait for their client (10000)',
    apply: (value, to, flag) => void (to.maxPendingTasks = wholes(flag, value)),
  },
  {
    name: 'max_total_processing_tasks',
    help: 'tasks that clients may be at (10000)',
    apply: (value, to, flag) => void (to.maxProcessingTasks = wholes(flag, value)),
  },
  {
    name: 'pending_task_timeout_sec',
    help: 'how long a task may wait; 0: for ever (300 s)',
    apply: (value, to, flag) => void (to.pendingTaskMs = milliseconds(flag, value, 1000)),
  },
  {
    name: 'processing_task_timeout_sec',
    help: 'how long a client may be at it; 0: for ever (300 s)',
    apply: (value, to, flag) => void (to.processingTaskMs = milliseconds(flag, value, 1000)),
  },
  {
    name: 'max_retry_attempts',
    help: 'how often a client tries a task for which there is no space (10)',
    apply: (value, to, flag) => void (to.maxTaskRetries = wholes(flag, value)),
  },
  {
    name: 'enable_offload',
    help: 'clients may lend disks: objects are written to them (false)',
    apply: (value, to, flag) => void (to.offload = truth(flag, value)),
  },
  {
    name: 'offload_on_evict',
    help: 'objects go to disks when they would be evicted, not when they are put (false)',
    apply: (value, to, flag) => void (to.offloadOnEvict = truth(flag, value)),
  },
  {
    name: 'offload_force_evict',
    help: 'then evict what no disk takes (false)',
    apply: (value, to, flag) => void (to.offloadForceEvict = truth(flag, value)),
  },
  {
    name: 'offloading_queue_limit',
    help: 'objects that may wait for one disk (50000)',
    apply: (value, to, flag) => void (to.offloadQueueLimit = wholes(flag, value)),
  },
  {
    name: 'offload_cap_ratio',
    help: 'share of that queue which one run of eviction may fill (0.5)',
    apply: (value, to, flag) => void (to.offloadCapRatio = Number(value) === 0 ? 0 : ratio(flag, value)),
  },
  {
    name: 'promotion_on_hit',
    help: 'objects on disks come back to memory when they are read often (false)',
    apply: (value, to, flag) => void (to.promotionOnHit = truth(flag, value)),
  },
  {
    name: 'promotion_admission_threshold',
    help: 'reads from which they do, 1 to 255 (2)',
    apply: (value, to, flag) => void (to.promotionThreshold = wholes(flag, value)),
  },
  {
    name: 'promotion_max_per_heartbeat',
    help: 'promotions that a client is told of at once (1)',
    apply: (value, to, flag) => void (to.promotionsPerHeartbeat = wholes(flag, value)),
  },
  {
    name: 'promotion_queue_limit',
    help: 'promotions that may be under way (50000)',
    apply: (value, to, flag) => void (to.promotionQueueLimit = wholes(flag, value)),
  },
  {
    name: 'quota_bytes',
    help: 'bytes that all objects may take; 0: no limit (0)',
    hidden: true,
    apply: (value, _, flag) => {
      if (wholes(flag, value) > 0) throw errors.notSupported(`--${flag}`, 'only per-tenant quotas are kept here');
    },
  },
  without('enable_cxl', 'CXL memory'),
  without('enable_oplog', 'replication of metadata to a second master'),
  {
    name: 'dynamic_replication_mode',
    help: 'more copies of what is read often',
    hidden: true,
    apply: (value, _, flag) => {
      if (value !== 'off') throw errors.notSupported(`--${flag}=${value}`, 'use off');
    },
  },
  without('enable_ha', 'several masters of which one leads'),
  without('enable_snapshot', 'snapshots'),
  without('enable_snapshot_restore', 'snapshots'),
  without('enable_kv_events', 'events of the master'),
  without('enable_multi_tenants', 'tenants from a policy file'),
  ...[
    'rpc_thread_num',
    'rpc_conn_timeout_seconds',
    'memory_allocator',
    'enable_metadata_cleanup_on_timeout',
    'enable_disk_eviction',
    'root_fs_dir',
    'ha_backend_type',
    'ha_backend_connstring',
    'etcd_endpoints',
    'cluster_id',
    'snapshot_interval_seconds',
    'snapshot_retention_count',
    'kv_events_bind_endpoint',
    'kv_events_backend_id',
    'kv_events_queue_capacity',
    'tenant_quota_connector_type',
    'tenant_quota_connector_uri',
    ...OTHERS,
  ].map(ignored),
];

/** What holds where nothing was said, for people: `help` ends with it, in parentheses. */
export function defaultOf({ help }: Flag): string | undefined {
  return /\(([^();]+)(?:;[^()]*)?\)$/.exec(help)?.[1];
}

/** Arguments of the command with two dashes before every flag: the stock master takes one as well. */
export function withTwoDashes(argv: readonly string[]): string[] {
  if (argv[2] !== 'master') return [...argv];
  const names = new Set(FLAGS.map(({ name }) => name));
  return argv.map((word) => (names.has(/^-([a-z]\w*)/.exec(word)?.[1] ?? '') ? `-${word}` : word));
}
