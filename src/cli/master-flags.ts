/**
 * The stock master's flags, each with what it means here: an option of ours, nothing (threads of a thread pool that we do not
 * have), or a refusal where it asks for what this version has not. Names and defaults: Mooncake's master 0.3.13.
 */
import { join } from 'node:path';
import { errors } from '../core/errors.js';
import { STRATEGIES } from '../master/options.js';
import type { MooncakeMasterOptions } from '../master/server/master.js';

type Apply = (value: string, options: MooncakeMasterOptions, flag: string) => void;

export interface Flag {
  /** As people type it, without dashes. */
  name: string;
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

/** Where snapshots are kept, of which only the local file system is one here. */
const localOnly = (name: string, known: readonly string[]): Flag => ({
  name,
  help: 'where snapshots are kept: local',
  hidden: true,
  apply: (value, _, flag) => {
    if (!known.includes(value)) throw errors.notSupported(`--${flag}=${value}`, 'snapshots are kept in a local folder');
  },
});

/** A setting of something that is decided otherwise here, or only matters with what is refused above. */
const ignored = (name: string): Flag => ({ name, help: 'accepted, without effect', hidden: true, apply: () => {} });

const wholes = (flag: string, value: string) => whole(flag, value, Number.MAX_SAFE_INTEGER);

export const FLAGS: readonly Flag[] = [
  { name: 'port', help: 'RPC port (50051)', apply: (value, to, flag) => void (to.port = port(value, flag)) },
  { name: 'rpc_port', help: 'the same', apply: (value, to, flag) => void (to.port = port(value, flag)) },
  {
    name: 'rpc_address',
    help: 'address to listen on (127.0.0.1; stock listens on 0.0.0.0)',
    apply: (value, to) => void (to.host = value),
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
    name: 'quota_bytes',
    help: 'bytes that all objects may take; 0: no limit (0)',
    hidden: true,
    apply: (value, _, flag) => {
      if (wholes(flag, value) > 0) throw errors.notSupported(`--${flag}`, 'only per-tenant quotas are kept here');
    },
  },
  {
    name: 'data-dir',
    help: 'folder in which objects outlive the master (none: it begins empty)',
    apply: (value, to) => void (to.dataDir = value),
  },
  {
    name: 'snapshot_interval_seconds',
    help: 'longest time between two snapshots in it (600)',
    apply: (value, to, flag) => void (to.snapshotIntervalMs = 1000 * Math.max(1, whole(flag, value, 2_000_000))),
  },
  {
    name: 'snapshot_retention_count',
    help: 'snapshots that are kept (2)',
    apply: (value, to, flag) => void (to.snapshotRetention = Math.max(1, whole(flag, value, 1000))),
  },
  {
    name: 'enable_snapshot',
    help: "stock's: a data directory below MOONCAKE_SNAPSHOT_LOCAL_PATH or --snapshot_backup_dir (false)",
    apply: (value, _, flag) => void truth(flag, value),
  },
  { name: 'enable_snapshot_restore', help: 'the same', apply: (value, _, flag) => void truth(flag, value) },
  localOnly('snapshot_object_store_type', ['', 'local']),
  localOnly('snapshot_catalog_store_type', ['', 'embedded', 'payload']),
  without('enable_offload', 'offload of objects to disks'),
  without('enable_ha', 'several masters of which one leads'),
  without('enable_kv_events', 'events of the master'),
  without('enable_multi_tenants', 'tenants from a policy file'),
  without('promotion_on_hit', 'promotion from disks'),
  ...[
    'rpc_thread_num',
    'rpc_conn_timeout_seconds',
    'memory_allocator',
    'enable_metadata_cleanup_on_timeout',
    'offload_on_evict',
    'offload_force_evict',
    'offloading_queue_limit',
    'offload_cap_ratio',
    'promotion_admission_threshold',
    'promotion_max_per_heartbeat',
    'promotion_queue_limit',
    'enable_disk_eviction',
    'root_fs_dir',
    'max_total_finished_tasks',
    'max_total_pending_tasks',
    'max_total_processing_tasks',
    'pending_task_timeout_sec',
    'processing_task_timeout_sec',
    'max_retry_attempts',
    'ha_backend_type',
    'ha_backend_connstring',
    'etcd_endpoints',
    'cluster_id',
    'snapshot_backup_dir',
    'snapshot_catalog_store_connstring',
    'snapshot_child_timeout_seconds',
    'kv_events_bind_endpoint',
    'kv_events_backend_id',
    'kv_events_queue_capacity',
    'tenant_quota_connector_type',
    'tenant_quota_connector_uri',
  ].map(ignored),
];

/** Options from what was typed, by flag name. Throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED naming the flag. */
export function optionsOfFlags(typed: Readonly<Record<string, string | true>>): MooncakeMasterOptions {
  const options: MooncakeMasterOptions = {};
  const given = (name: string) => {
    const value = typed[attribute(name)];
    return value === true ? 'true' : value;
  };
  // In the order of the list: a port of the metadata server counts where the server is wanted.
  for (const { name, apply } of FLAGS) {
    const value = given(name);
    if (value !== undefined) apply(value, options, name);
  }
  const wanted = ['enable_snapshot', 'enable_snapshot_restore'].find((name) => truth(name, given(name) ?? 'false'));
  if (wanted) options.dataDir ??= stockFolder(wanted, given('snapshot_backup_dir'));
  return options;
}

/** Beside what a stock master keeps there, which is its own. */
function stockFolder(flag: string, backup: string | undefined): string {
  const folder = process.env.MOONCAKE_SNAPSHOT_LOCAL_PATH || backup;
  if (folder) return join(folder, 'mooncake-ts');
  throw errors.invalidArgument(`--${flag}`, 'true', 'given with --data-dir (or MOONCAKE_SNAPSHOT_LOCAL_PATH)');
}

/** A flag as the parser of the command line names it. */
const attribute = (name: string) => name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
