/** The master's HTTP endpoints, for what its RPC does not tell: figures, and the segments of the cluster. */
import { errors } from '../../core/errors.js';
import type { MetadataStats, SegmentFigures, Uuid } from '../../master/api.js';
import type { Limits } from '../../transfer/limits.js';
import { formatName } from '../../transfer/metadata/name.js';
import type { Place } from '../../transfer/tcp/address.js';

const NUMBER = /^(\w+)(?:\{reason="([\w-]+)"\})? ([0-9.e+]+)$/gm;
const MAX_BYTES = 64 * 2 ** 20;

export class Admin {
  readonly #base: string;

  constructor(place: Place) {
    this.#base = `http://${formatName(place)}`;
  }

  /**
   * What `/metrics` says, under the stock names and ours. A stock master says nothing of lookups, of what it keeps back and
   * of its tables: those are 0, and tenants are not listed.
   */
  async stats(limits: Limits): Promise<MetadataStats> {
    const figures = new Map<string, number>();
    for (const [, name, reason, value] of (await this.#get('/metrics', limits)).matchAll(NUMBER)) {
      figures.set(reason === undefined ? name : `${name} ${reason}`, Number(value));
    }
    const figure = (name: string) => figures.get(name) ?? 0;
    const freed = figure('master_successful_evictions_total');
    const missed = (reason: string) => figure(`mooncake_misses_total ${reason}`);
    return {
      objects: figure('master_key_count'),
      incomplete: figure('mooncake_incomplete_objects'),
      usedBytes: figure('master_allocated_bytes'),
      keptBackBytes: figure('mooncake_kept_back_bytes'),
      capacityBytes: figure('master_total_capacity_bytes'),
      evictedObjects: figure('master_evicted_key_count'),
      evictedBytes: figure('master_evicted_size_bytes'),
      evictions: figure('master_attempted_evictions_total'),
      fruitlessEvictions: figure('master_attempted_evictions_total') - freed,
      discardedPuts: figure('master_put_start_discard_cnt'),
      lookups: figure('mooncake_lookups_total'),
      hits: figure('mooncake_hits_total'),
      misses: {
        absent: missed('absent'),
        evicted: missed('evicted'),
        removed: missed('removed'),
        incomplete: missed('incomplete'),
        'unknown-tenant': missed('unknown-tenant'),
      },
      metadataBytes: figure('mooncake_metadata_bytes'),
      tenants: {},
    };
  }

  /** What `/get_segments_detail` says; how many copies a segment holds, and what is kept back, is not told (0). */
  async segments(limits: Limits): Promise<SegmentFigures[]> {
    const text = await this.#get('/get_segments_detail', limits);
    let segments: unknown;
    try {
      ({ segments } = JSON.parse(text));
    } catch {
      throw errors.protocol('segments that are no JSON', text.slice(0, 200));
    }
    if (!Array.isArray(segments)) throw errors.protocol('segments that are no list', segments);
    return segments.map((segment) => ({
      id: uuidOf(segment.segment_id),
      name: `${segment.segment_name}`,
      base: Number(segment.base_address),
      length: Number(segment.size_bytes),
      endpoint: `${segment.te_endpoint}`,
      protocol: `${segment.protocol}`,
      hostId: '',
      client: uuidOf(segment.client_id),
      isLeaving: segment.status !== undefined && !/^(ok|mounted)$/i.test(`${segment.status}`),
      isAbsent: false,
      drain: drainOf(segment.status),
      usedBytes: Number(segment.allocator_used_bytes),
      capacityBytes: Number(segment.allocator_capacity_bytes),
      objects: 0,
      keptBack: 0,
    }));
  }

  async #get(path: string, { signal, timeoutMs }: Limits): Promise<string> {
    const end = AbortSignal.timeout(timeoutMs);
    try {
      const response = await fetch(`${this.#base}${path}`, { signal: signal ? AbortSignal.any([signal, end]) : end });
      const text = await response.text();
      if (!response.ok || text.length > MAX_BYTES) throw new Error(`answered ${response.status}`);
      return text;
    } catch (error) {
      if (signal?.aborted) throw errors.aborted(signal.reason);
      if (end.aborted) throw errors.timeout(`${this.#base}${path}`, timeoutMs);
      throw errors.peer(this.#base, `${path}: ${(error as Error).message}`, error);
    }
  }
}

function drainOf(status: unknown): SegmentFigures['drain'] {
  if (/^draining$/i.test(`${status}`)) return 'draining';
  return /^drained$/i.test(`${status}`) ? 'drained' : 'none';
}

/** Ids are two decimal numbers of 64 bits on the pages of a stock master, hexadecimal digits everywhere else. */
function uuidOf(text: unknown): Uuid {
  if (/^[0-9a-f]{32}$/.test(`${text}`)) return `${text}`;
  const halves = /^(\d{1,20})-(\d{1,20})$/.exec(`${text}`);
  if (!halves) throw errors.protocol('an id that is none', text);
  return [halves[1], halves[2]].map((half) => BigInt(half).toString(16).padStart(16, '0')).join('');
}
