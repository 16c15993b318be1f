/**
 * HTTP of drain jobs, with the stock master's paths and bodies: an operator begins one, watches it, and cancels it. Ids are
 * written as stock writes them, two decimal numbers.
 */
import type { IncomingMessage } from 'node:http';
import type { SegmentFigures, Status, Uuid } from '../api.js';
import { type DrainJob, type DrainRequest, type Drains, JOB_STATE } from '../drain.js';
import { STATUS } from '../status.js';
import { standing } from './segment-calls.js';

export interface DrainSources {
  drains: Drains;
  segments(): readonly SegmentFigures[];
}

/** An answer of HTTP: its status and what is to be written as JSON. */
export interface JsonAnswer {
  status: number;
  value: object;
}

const PREFIX = '/api/v1/';
/** Bytes of a request: far more than the names of all segments. */
const MAX_BODY = 2 ** 20;

/** Answers a request about drain jobs; undefined for any other. */
export async function drainHttp(
  request: IncomingMessage,
  url: URL,
  { drains, segments }: DrainSources,
): Promise<JsonAnswer | undefined> {
  const route = `${request.method} ${url.pathname}`;
  if (route === `POST ${PREFIX}drain_jobs`) return create(await bodyOf(request), drains);
  if (route === `GET ${PREFIX}drain_jobs/query`) {
    const id = jobId(url);
    if (id === undefined) return NO_JOB_ID;
    const job = drains.get(id);
    return job ? good(describe(job)) : bad(STATUS.jobNotFound);
  }
  if (route === `POST ${PREFIX}drain_jobs/cancel`) {
    const id = jobId(url);
    if (id === undefined) return NO_JOB_ID;
    const status = drains.cancel(id);
    return status === STATUS.ok ? good({ job_id: decimal(id), status: 'CANCELED' }) : bad(status);
  }
  if (route === `GET ${PREFIX}segments/status`) {
    const name = url.searchParams.get('segment');
    if (!name) return bad(STATUS.invalidParams, 'Missing segment query parameter');
    const segment = segments().find((one) => one.name === name);
    if (!segment) return bad(STATUS.segmentNotFound);
    const [status, statusName] = standing(segment);
    return good({ segment: name, status, status_name: statusName });
  }
  return undefined;
}

function create(body: string | undefined, drains: Drains): JsonAnswer {
  if (body === undefined) return bad(STATUS.invalidParams, `Invalid JSON body: longer than ${MAX_BODY} bytes`);
  const request = parse(body);
  if (typeof request === 'string') return bad(STATUS.invalidParams, `Invalid JSON body: ${request}`);
  const job = drains.create(request);
  return job.ok ? good({ job_id: decimal(job.value), status: 'CREATED' }) : bad(job.status);
}

/** What is asked for, or why the text is no request. */
function parse(body: string): DrainRequest | string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    return (error as Error).message;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'an object is expected';
  const { segments = [], target_segments: targets = [], max_concurrency: tasks = 4 } = value as Record<string, unknown>;
  if (!isNames(segments)) return 'segments: an array of names is expected';
  if (!isNames(targets)) return 'target_segments: an array of names is expected';
  if (!(Number.isInteger(tasks) && (tasks as number) >= 0 && (tasks as number) < 2 ** 32)) {
    return 'max_concurrency: a number below 2^32 is expected';
  }
  return { segments, targets, maxConcurrency: tasks as number };
}

const isNames = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((name) => typeof name === 'string');

function describe(job: Readonly<DrainJob>): object {
  return {
    job_id: decimal(job.id),
    type: 0,
    type_name: 'DRAIN',
    status: job.state,
    status_name: Object.entries(JOB_STATE)
      .find(([, state]) => state === job.state)![0]
      .toUpperCase(),
    created_at_ms_epoch: job.createdMs,
    last_updated_at_ms_epoch: job.updatedMs,
    segments: job.segments,
    succeeded_units: job.succeeded,
    failed_units: job.failed,
    blocked_units: job.blocked,
    active_units: job.active,
    migrated_bytes: job.migratedBytes,
    message: job.message,
  };
}

function good(fields: object): JsonAnswer {
  return { status: 200, value: { success: true, ...fields, error_code: 0, error_message: '' } };
}

/** HTTP status and name of each of Mooncake's errors that there are here. */
const ERRORS = new Map<Status, [number, string]>([
  [STATUS.invalidParams, [400, 'INVALID_PARAMS']],
  [STATUS.segmentNotFound, [404, 'SEGMENT_NOT_FOUND']],
  [STATUS.jobNotFound, [404, 'JOB_NOT_FOUND']],
  [STATUS.unavailable, [409, 'UNAVAILABLE_IN_CURRENT_STATUS']],
]);

function bad(code: Status, message?: string): JsonAnswer {
  const [status, name] = ERRORS.get(code) ?? [500, 'INTERNAL_ERROR'];
  return { status, value: { success: false, error_code: code, error_message: message ?? name } };
}

const NO_JOB_ID = bad(STATUS.invalidParams, 'Missing or invalid job_id');

function decimal(id: Uuid): string {
  return `${BigInt(`0x${id.slice(0, 16)}`)}-${BigInt(`0x${id.slice(16)}`)}`;
}

function jobId(url: URL): Uuid | undefined {
  const parts = /^(\d{1,20})-(\d{1,20})$/.exec(url.searchParams.get('job_id') ?? '');
  const halves = parts?.slice(1).map((half) => BigInt(half));
  if (!halves?.every((half) => half < 1n << 64n)) return undefined;
  return halves.map((half) => half.toString(16).padStart(16, '0')).join('');
}

/** A request's body; undefined where it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
