/** The master's figures as Prometheus text: stock names where the meaning is the same, ours where stock has none. */
import type { RpcServerStats } from '../../rpc/server.js';
import type { DiskStats, MetadataStats, SegmentFigures } from '../api.js';
import type { CallFigures } from './metrics-calls.js';
import type { ProcessFigures } from './metrics-process.js';
import { labelled, MetricsText } from './metrics-text.js';

export interface MasterFigures {
  stats: MetadataStats & { disks: DiskStats };
  requests: Readonly<RpcServerStats>;
  clients: number;
  /** Those of them that have remounted. */
  activeClients: number;
  segments: readonly SegmentFigures[];
  calls: CallFigures;
  process: ProcessFigures;
}

export function metrics({ stats, requests, clients, activeClients, segments, calls, process }: MasterFigures): string {
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
  const bySegment = (field: 'usedBytes' | 'capacityBytes') => labelled('segment', sums(segments, field));
  metric('segment_allocated_bytes', 'gauge', 'Bytes that objects take, by segment', bySegment('usedBytes'));
  metric('segment_total_capacity_bytes', 'gauge', 'Bytes of each segment', bySegment('capacityBytes'));
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
  calls.write(text);
  process.write(text);
  return text.toString();
}

const freed = (stats: MetadataStats) => stats.evictions - stats.fruitlessEvictions;

/** Segments of one name are one, as for the stock master. */
function sums(segments: readonly SegmentFigures[], field: 'usedBytes' | 'capacityBytes'): Record<string, number> {
  const bytes: Record<string, number> = {};
  for (const segment of segments) {
    const name = segment.name.replace(/[\\"\n]/g, (mark) => (mark === '\n' ? '\\n' : `\\${mark}`));
    bytes[name] = (bytes[name] ?? 0) + segment[field];
  }
  return bytes;
}
