/**
 * The REST API of segments: memory that is lent while the node runs, and taken back. A request whose body is not what it
 * should be changes nothing, nor does one that names a segment which was not mounted this way.
 */
import { errors } from '../../core/errors.js';
import type { Uuid } from '../../master/api.js';
import { type Answer, type Call, failed, json, type Routes } from './http.js';
import { formatId, parseId } from './ids.js';
import { fields } from './objects.js';

const MAX_GRACE_SECONDS = 3600;
/** Sizes are rounded up to it, as stock does. */
const UNIT_BYTES = 16 * 2 ** 20;
const GRACE = `must be a non-negative integer no greater than ${MAX_GRACE_SECONDS}`;

const BAD_SIZE = json({ error: 'Invalid size, must be a positive integer' }, 400);
const BAD_NAME = json({ error: 'Missing or invalid name or size' }, 400);
const BAD_GRACE = json({ error: `Invalid grace_period_seconds, ${GRACE}` }, 400);
const NO_IDS = json({ error: 'Missing segment_ids' }, 400);
const BAD_MODE = json({ error: "Invalid mode. Use 'decode' or 'prefill'" }, 400);
const NO_PATH = json({ error: 'Missing path or size for decode mode' }, 400);
const DONE = json({ status: 'success' });

/** Who lends the memory. */
export interface Lender {
  mount(bytes: number): Promise<Uuid>;
  /** Resolves when the master knows; what is there stays readable for so long. */
  unmount(segment: Uuid, graceMs: number): Promise<void>;
  /** Resolves when the grace is over. */
  unmountDisk(graceMs: number): Promise<void>;
}

export class SegmentApi {
  readonly routes: Routes;
  readonly #lender: Lender;
  /** Mounted by requests; what the node lends from its start on is not theirs to take. */
  readonly #mounted = new Set<Uuid>();

  constructor(lender: Lender) {
    this.#lender = lender;
    this.routes = {
      'POST /api/mount': (call) => this.#mount(call),
      'POST /api/mount_shm': mountShm,
      'POST /api/unmount': (call) => this.#unmount(call),
      'POST /api/unmount_shm': unmountShm,
      'POST /api/unmount_local_disk': (call) => this.#unmountDisk(call),
      'POST /api/reconfigure': reconfigure,
    };
  }

  async #mount(call: Call): Promise<Answer> {
    const { size, protocol } = await fields(call);
    if (!isCount(size)) return BAD_SIZE;
    if (protocol !== undefined && protocol !== 'tcp') throw errors.invalidArgument('protocol', protocol, '"tcp"');
    const bytes = Math.ceil(size / UNIT_BYTES) * UNIT_BYTES;
    try {
      const id = await this.#lender.mount(bytes);
      this.#mounted.add(id);
      return json({ status: 'success', segment_ids: [formatId(id)], allocated_size: bytes });
    } catch (error) {
      return failed({ error: 'Allocate and mount failed, ret=-1' }, error);
    }
  }

  async #unmount(call: Call): Promise<Answer> {
    const asked = await fields(call);
    const ids = idsOf(asked.segment_ids);
    if (!ids) return NO_IDS;
    const graceMs = graceOf(asked.grace_period_seconds);
    if (graceMs === undefined) return BAD_GRACE;
    try {
      await this.#takeBack(ids, graceMs);
      return DONE;
    } catch (error) {
      return failed({ error: 'Unmount and free failed, ret=-1' }, error);
    }
  }

  /** Where no disk is lent, that is what was asked for. */
  async #unmountDisk(call: Call): Promise<Answer> {
    let body: unknown;
    try {
      body = await call.json();
    } catch (error) {
      return failed({ error: 'Malformed JSON body' }, error, 400);
    }
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      return json({ error: 'Request body must be a JSON object' }, 400);
    }
    const graceMs = graceOf((body as Record<string, unknown>).grace_period_seconds);
    if (graceMs === undefined) return BAD_GRACE;
    try {
      await this.#lender.unmountDisk(graceMs);
      return DONE;
    } catch (error) {
      return failed({ error: 'Unmount local disk failed, ret=-1' }, error);
    }
  }

  async #takeBack(names: readonly string[], graceMs: number): Promise<void> {
    const ids = names.map((name) => {
      const id = parseId(name);
      if (id !== undefined && this.#mounted.has(id)) return id;
      throw errors.segment('segment_ids', name, 'was not mounted by /api/mount');
    });
    for (const id of new Set(ids)) {
      await this.#lender.unmount(id, graceMs);
      this.#mounted.delete(id);
    }
  }
}

/** Memory of another process, by its name: Node cannot map it. */
async function mountShm(call: Call): Promise<Answer> {
  const { name, size } = await fields(call);
  if (!isShmName(name) || size === undefined || size === null) return BAD_NAME;
  const error = errors.notSupported('mounting shared memory by name', 'use /api/mount, whose memory local peers map');
  return failed({ error: 'Mount failed, ret=-1' }, error);
}

async function unmountShm(call: Call): Promise<Answer> {
  const asked = await fields(call);
  const ids = idsOf(asked.segment_ids);
  if (!ids) return NO_IDS;
  if (graceOf(asked.grace_period_seconds) === undefined) return BAD_GRACE;
  const error = errors.segment('segment_ids', ids[0], 'was not mounted by /api/mount_shm');
  return failed({ error: 'Unmount failed for one or more segments', failed_segment_ids: ids }, error);
}

/**
 * Stock's switch of a node between the halves of an engine: `decode` lends memory of another process by its path, `prefill` takes
 * it back. Here none is ever lent that way.
 */
async function reconfigure(call: Call): Promise<Answer> {
  const { mode, path, size } = await fields(call);
  const wanted = typeof mode === 'string' ? mode.toLowerCase() : undefined;
  if (wanted === 'prefill') return json({ status: 'success', mode: 'prefill' });
  if (wanted !== 'decode') return BAD_MODE;
  if (!path || size === undefined || size === null) return NO_PATH;
  const error = errors.notSupported('mounting memory by its path', 'use /api/mount, whose memory local peers map');
  return failed({ error: 'Mount failed, ret=-1; rolled back to prefill', mode: 'prefill' }, error);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;

function isShmName(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  const name = value.replace(/^\//, '');
  return name !== '' && !name.includes('/') && name !== '.' && name !== '..';
}

/** Undefined where there are none; what is no text is nobody's id. */
function idsOf(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  return value.map(String);
}

/** Milliseconds; undefined for what is no grace period. */
function graceOf(seconds: unknown): number | undefined {
  if (seconds === undefined) return 0;
  const isGrace = Number.isInteger(seconds) && (seconds as number) >= 0 && (seconds as number) <= MAX_GRACE_SECONDS;
  return isGrace ? (seconds as number) * 1000 : undefined;
}
