/** The master's figures as Prometheus text: stock names where the meaning is the same, ours where stock has none. */
import type { ProcessFigures } from '../../metrics/process.js';
import { type Labelled, labelled, MetricsText } from '../../metrics/text.js';
import type { RpcServerStats } from '../../rpc/server.js';
import type { DiskStats, MetadataStats, SegmentFigures } from '../api.js';
import type { PersistenceFigures } from '../persist/persistence.js';
import type { CallFigures } from './metrics-calls.js';

export interface MasterFigures {
  stats: MetadataStats & { disks: DiskStats };
  requests: Readonly<RpcServerStats>;
  clients: number;
  /** Those of them that have remounted. */
  activeClients: number;
  segments: readonly SegmentFigures[];
  calls: CallFigures;
  process: ProcessFigures;
  /** Undefined: no state is kept. */
  persistence?: PersistenceFigures;
}

export function metrics(figures: MasterFigures): string {
  const { stats, requests, clients, activeClients, segments, calls, process, persistence } = figures;
  const text = new MetricsText();
  const metric = text.metric.bind(text);
  metric('master_allocated_bytes', 'gauge', 'Bytes that objects take in segments', stats.usedBytes);
  metric('master_total_capacity_bytes', 'gauge', 'Bytes of all mounted segments', stats.capacityBytes);
  metric('master_key_count', 'gauge', 'Objects, also those being written', stats.objects + stats.incomplete);
  metric('mem_cache_nums_', 'gauge', 'Objects that can be read', stats.objects);
  metric('master_active_clients', 'gauge', 'Clients that have remounted and ping', activeClients);
  metric('mooncake_clients', 'gauge', 'Clients that lend or ping', clients);
  metric('master_evicted_key_count', 'counter', 'Objects evicted', stats.evictedObjects);
  metric('master_evicted_size_bytes', 'counter', 'Bytes evicted', stats.evictedBytes);
  metric('master_successful_evictions_total', 'counter', 'Runs of eviction that freed something', freed(stats));
  metric('master_attempted_evictions_total', 'counter', 'Runs of eviction', stats.evictions);
  const { disks } = stats;
  metric('master_allocated_file_size_bytes', 'gauge', 'Bytes that objects take on disks', disks.usedBytes);
  metric('master_total_file_capacity_bytes', 'gauge', 'Bytes that disks may hold', disks.capacityBytes);
  metric('file_cache_nums_', 'gauge', 'Copies of objects on disks', disks.objects);
  metric('mooncake_objects_on_disk_alone', 'gauge', 'Objects whose only copy is on a disk', disks.objectsOnDiskAlone);
  metric('mooncake_offloads', 'gauge', 'Objects that are to be written to disks', disks.offloads);
  metric('master_promotion_in_flight', 'gauge', 'Objects on their way from disks to memory', disks.promotions);
  metric('master_promotion_admitted_total', 'counter', 'Promotions begun', disks.promotionsAdmitted);
  metric('master_promotion_completed_total', 'counter', 'Promotions done', disks.promotionsCompleted);
  metric('master_promotion_failed_total', 'counter', 'Promotions that came to nothing', disks.promotionsFailed);
  for (const [reason, count] of Object.entries(disks.promotionsRefused)) {
    const help = 'Reads that led to no promotion';
    metric(`master_promotion_rejected_${reason}_total`, 'counter', help, count);
  }
  metric('master_put_start_discard_cnt', 'counter', 'Puts that did not end in time', stats.discardedPuts);
  metric('mooncake_segments', 'gauge', 'Segments mounted', segments.length);
  metric('segment_allocated_bytes', 'gauge', 'Bytes that objects take, by segment', bySegment(segments, 'usedBytes'));
  metric('segment_total_capacity_bytes', 'gauge', 'Bytes of each segment', bySegment(segments, 'capacityBytes'));
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
  calls.write(text);
  process.write(text);
  return text.toString();
}

const freed = (stats: MetadataStats) => stats.evictions - stats.fruitlessEvictions;

/** Segments of one name are one, as for the stock master. */
function bySegment(segments: readonly SegmentFigures[], field: 'usedBytes' | 'capacityBytes'): Labelled {
  const bytes = new Map<string, number>();
  for (const { name, [field]: size } of segments) bytes.set(name, (bytes.get(name) ?? 0) + size);
  return [...bytes].map(([segment, size]) => [{ segment }, size]);
}
