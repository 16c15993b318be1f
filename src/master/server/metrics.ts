/** The master's figures as Prometheus text: stock names where the meaning is the same, ours where stock has none. */
import type { RpcServerStats } from '../../rpc/server.js';
import type { MetadataStats } from '../api.js';
import type { PersistenceFigures } from '../persist/persistence.js';

export interface MasterFigures {
  stats: MetadataStats;
  requests: Readonly<RpcServerStats>;
  clients: number;
  segments: number;
  /** Undefined: no state is kept. */
  persistence?: PersistenceFigures;
}

export function metrics({ stats, requests, clients, segments, persistence }: MasterFigures): string {
  const out: string[] = [];
  const metric = (name: string, type: 'gauge' | 'counter', help: string, value: number | Record<string, number>) => {
    out.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    if (typeof value === 'number') out.push(`${name} ${value}`);
    else for (const [labels, one] of Object.entries(value)) out.push(`${name}{${labels}} ${one}`);
  };
  metric('master_allocated_bytes', 'gauge', 'Bytes that objects take in segments', stats.usedBytes);
  metric('master_total_capacity_bytes', 'gauge', 'Bytes of all mounted segments', stats.capacityBytes);
  metric('master_key_count', 'gauge', 'Readable objects', stats.objects);
  metric('master_active_clients', 'gauge', 'Clients that ping', clients);
  metric('master_evicted_key_count', 'counter', 'Objects evicted', stats.evictedObjects);
  metric('master_evicted_size_bytes', 'counter', 'Bytes evicted', stats.evictedBytes);
  metric('master_successful_evictions_total', 'counter', 'Runs of eviction that freed something', freed(stats));
  metric('master_attempted_evictions_total', 'counter', 'Runs of eviction', stats.evictions);
  metric('master_put_start_discard_cnt', 'counter', 'Puts that did not end in time', stats.discardedPuts);
  metric('mooncake_segments', 'gauge', 'Segments mounted', segments);
  metric('mooncake_incomplete_objects', 'gauge', 'Puts under way', stats.incomplete);
  metric('mooncake_kept_back_bytes', 'gauge', 'Bytes that late readers or writers may touch', stats.keptBackBytes);
  metric('mooncake_metadata_bytes', 'gauge', 'Memory of the tables', stats.metadataBytes);
  metric('mooncake_lookups_total', 'counter', 'Keys asked for', stats.lookups);
  metric('mooncake_hits_total', 'counter', 'Keys found', stats.hits);
  metric('mooncake_misses_total', 'counter', 'Keys not found, by reason', labelled('reason', stats.misses));
  metric('mooncake_rpc_connections_total', 'counter', 'Connections taken', requests.connections);
  metric('mooncake_rpc_requests_total', 'counter', 'Requests', requests.requests);
  metric('mooncake_rpc_refused_total', 'counter', 'Requests of an unknown method or shape', requests.refused);
  metric('mooncake_rpc_failed_total', 'counter', 'Requests that ended in an exception', requests.failed);
  if (persistence) {
    const { logBytes, snapshotBytes, snapshotAgeMs, snapshots, replayMs, isFailing } = persistence;
    metric('mooncake_log_bytes', 'gauge', 'Bytes of log that a restart would read', logBytes);
    metric('mooncake_log_failing', 'gauge', '1: nothing can be made durable, writes are refused', isFailing ? 1 : 0);
    metric('mooncake_snapshot_bytes', 'gauge', 'Bytes of the last snapshot', snapshotBytes);
    metric('mooncake_snapshot_age_seconds', 'gauge', 'Time since the last snapshot or the start', snapshotAgeMs / 1000);
    metric('mooncake_snapshots_total', 'counter', 'Snapshots written', snapshots);
    metric('mooncake_replay_seconds', 'gauge', 'Time that reading the data directory took', replayMs / 1000);
  }
  return `${out.join('\n')}\n`;
}

const freed = (stats: MetadataStats) => stats.evictions - stats.fruitlessEvictions;

function labelled(label: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${label}="${name}"`, value]));
}
