/** A look at a master, ours or stock, by its HTTP port: its metrics, and its segments. */
import { errors } from '../core/errors.js';
import { ask } from '../transfer/metadata/ask.js';
import { Exposition } from './exposition.js';

export interface SegmentSample {
  id: string;
  name: string;
  client: string;
  status: string;
  usedBytes: number;
  capacityBytes: number;
}

export interface Sample {
  /** performance.now() of the answer. */
  at: number;
  metrics: Exposition;
  segments: SegmentSample[];
}

const TIMEOUT_MS = 3000;

/** `http://host:port` from what a person types. Throws ERR_INVALID_ARGUMENT. */
export function masterUrl(text: string): URL {
  const whole = /^https?:\/\//.test(text) ? text : `http://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : undefined;
  if (!url?.hostname) throw errors.invalidArgument('master', text, '"host:port" of the HTTP port of a master');
  if (!/:\d+$/.test(text.replace(/\/+$/, '')) && url.port === '' && url.protocol === 'http:') url.port = '9003';
  return url;
}

/** Throws ERR_PEER and ERR_TIMEOUT naming the master, ERR_ABORTED. */
export async function look(url: URL, signal: AbortSignal): Promise<Sample> {
  const [metrics, segments] = await Promise.all([
    page(url, '/metrics', signal),
    page(url, '/get_segments_detail', signal),
  ]);
  return { at: performance.now(), metrics: new Exposition(metrics), segments: readSegments(url, segments) };
}

async function page(url: URL, path: string, signal: AbortSignal): Promise<string> {
  const what = `GET ${path}`;
  const limits = { signal, timeoutMs: TIMEOUT_MS };
  const { status, body } = await ask(new URL(path, url), { method: 'GET', what, limits, connectMs: TIMEOUT_MS });
  if (status !== 200) throw errors.peer(url.host, `${what} was answered with ${status}`);
  return body;
}

function readSegments(url: URL, text: string): SegmentSample[] {
  try {
    const { segments } = JSON.parse(text) as { segments: Record<string, unknown>[] };
    return segments.map((one) => ({
      id: String(one.segment_id),
      name: String(one.segment_name),
      client: String(one.client_id),
      status: String(one.status),
      usedBytes: Number(one.allocator_used_bytes) || 0,
      capacityBytes: Number(one.allocator_capacity_bytes) || 0,
    }));
  } catch (error) {
    throw errors.peer(url.host, 'GET /get_segments_detail was not answered with segments', error);
  }
}
