/**
 * HTTP of the master, under the stock master's paths: health, keys, segments, and where an object is. It is read-only, drain
 * jobs excepted (drain-http.ts): nothing here grants a lease or counts as use.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Keys } from '../../core/keys.js';
import type { DiskReplica, ObjectInfo, Outcome, SegmentFigures } from '../api.js';
import type { Drains } from '../drain.js';
import type { MetadataService } from '../service.js';
import { drainHttp } from './drain-http.js';
import type { MasterFigures } from './metrics.js';
import { metrics } from './metrics.js';
import type { Bases } from './replicas.js';
import { toWire } from './replicas.js';
import { standing } from './segment-calls.js';

type Answer = { status: number; type: string; body: string };

const text = (body: string, status = 200): Answer => ({ status, type: 'text/plain; charset=utf-8', body });
const json = (value: unknown, status = 200): Answer => ({
  status,
  type: 'application/json',
  body: JSON.stringify(value),
});

const DEFAULT_TENANT = 'default';

/** What a stock master without high availability says of itself. */
const [ROLE, STATE] = ['leader', 'serving'];
const NO_LEADER = { leader_address: null, view_version: null };

export interface AdminSources {
  service: MetadataService;
  bases: Bases;
  drains: Drains;
  figures(): MasterFigures;
}

/** Answers a request; undefined for paths that are not the master's. */
export async function admin(request: IncomingMessage, sources: AdminSources): Promise<Answer | undefined> {
  const url = URL.canParse(request.url ?? '', 'http://master') ? new URL(request.url!, 'http://master') : undefined;
  if (!url) return undefined;
  const drain = await drainHttp(request, url, { drains: sources.drains, segments: () => sources.service.segments() });
  if (drain) return { ...json(drain.value, drain.status), type: 'application/json; charset=utf-8' };
  const known = ROUTES[url.pathname];
  if (!known) return undefined;
  if (request.method !== 'GET' && request.method !== 'HEAD') return text('only GET is served here\n', 405);
  return known(sources, url.searchParams);
}

const ROUTES: Record<string, (sources: AdminSources, query: URLSearchParams) => Answer | Promise<Answer>> = {
  '/health': () => json({ status: 'ok', role: ROLE, ha_state: STATE, service_ready: true, ...NO_LEADER }),
  '/role': () => text(ROLE),
  '/ha_status': () => text(STATE),
  '/leader': () => json({ present: false, ...NO_LEADER }),
  '/metrics': ({ figures }) => text(metrics(figures())),
  '/metrics/summary': ({ figures }) => text(summary(figures())),
  '/get_all_keys': async ({ service }) => text(lines(await service.keys(DEFAULT_TENANT))),
  '/get_all_segments': ({ service }) => text(lines(service.segments().map(({ name }) => name))),
  '/query_segment': ({ service }, query) => {
    const name = query.get('segment');
    if (!name) return text('a segment is needed: /query_segment?segment=…\n', 400);
    const mine = service.segments().filter((segment) => segment.name === name);
    if (mine.length === 0) return text(`no segment ${name}\n`, 404);
    const sum = (field: 'usedBytes' | 'capacityBytes') => mine.reduce((total, segment) => total + segment[field], 0);
    return text(lines([name, `Used(bytes): ${sum('usedBytes')}`, `Capacity(bytes): ${sum('capacityBytes')}`]));
  },
  '/query_key': ({ service, bases }, query) => {
    const found = look(service, query.get('key'), query.get('tenant_id'));
    if (!found.ok) {
      const missing = { success: false, error_code: found.status, error_message: 'OBJECT_NOT_FOUND' };
      return json(missing, 404);
    }
    const data = found.value.replicas.map((one) => {
      const { value } = toWire(bases, one).descriptor;
      if (!('buffer' in value)) return {};
      const { size, address, protocol, endpoint } = value.buffer;
      // Below 2^53: as plain numbers, like stock.
      return {
        size_: Number(size),
        buffer_address_: Number(address),
        protocol_: protocol,
        transport_endpoint_: endpoint,
      };
    });
    return json({ success: true, data });
  },
  '/batch_query_keys': ({ service, bases }, query) => {
    const keys = (query.get('keys') ?? '').split(',').filter((key) => key !== '');
    if (keys.length === 0) return json({ success: false, error_message: 'keys are needed: ?keys=a,b' }, 400);
    const data = new Map<string, unknown>();
    for (const key of keys) {
      const found = look(service, key, query.get('tenant_id'));
      const answer = found.ok
        ? {
            ok: true,
            values: found.value.replicas.map((one) => ({
              transport_endpoint_: one.endpoint,
              buffer_descriptor: Number((bases.get(one.segment) ?? 0) + one.offset),
            })),
            ...(found.value.disk && { local_disk_values: [found.value.disk].map(diskValue) }),
          }
        : { ok: false, error: 'OBJECT_NOT_FOUND' };
      data.set(key, answer);
    }
    return json({ success: true, data: Object.fromEntries(data) });
  },
  '/get_segments_detail': ({ service }) => {
    const segments = service.segments().map(detail);
    return json({ total_segments: segments.length, segments });
  },
};

function look(service: MetadataService, key: string | null, tenant: string | null): Outcome<ObjectInfo> {
  if (!key) return { ok: false, status: -704, why: 'absent' };
  return service.peek(Keys.from([key]), tenant ?? DEFAULT_TENANT)[0];
}

function diskValue({ client, size, endpoint }: DiskReplica) {
  return { client_id: client, object_size: size, transport_endpoint: endpoint };
}

function detail(one: SegmentFigures) {
  const usage = one.capacityBytes === 0 ? 0 : (100 * one.usedBytes) / one.capacityBytes;
  return {
    segment_name: one.name,
    segment_id: one.id,
    client_id: one.client,
    base_address: `0x${one.base.toString(16)}`,
    size_bytes: one.length,
    size_human: human(one.length),
    te_endpoint: one.endpoint,
    protocol: one.protocol,
    status: standing(one)[1],
    allocator_used_bytes: one.usedBytes,
    allocator_capacity_bytes: one.capacityBytes,
    allocator_usage_percent: Number(usage.toFixed(2)),
  };
}

const lines = (all: readonly string[]) => all.map((line) => `${line}\n`).join('');

function human(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(2)} ${units[unit]}`;
}

function summary({ stats, clients, requests }: MasterFigures): string {
  const hitRate = stats.lookups === 0 ? 0 : (100 * stats.hits) / stats.lookups;
  return (
    `Mem Storage: ${human(stats.usedBytes)} / ${human(stats.capacityBytes)} | Keys: ${stats.objects} | ` +
    `Clients: ${clients} | Requests: ${requests.requests} (${requests.refused} refused, ${requests.failed} failed) | ` +
    `Lookups: ${stats.lookups}, ${hitRate.toFixed(1)}% hits | Eviction: ${stats.evictedObjects} keys, ${human(stats.evictedBytes)}\n`
  );
}

/** Writes an answer; 404 for undefined. */
export function send(response: ServerResponse, answer: Answer | undefined): void {
  const { status, type, body } = answer ?? text('not found\n', 404);
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
}
