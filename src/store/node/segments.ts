/**
 * The REST API of segments: memory that is lent while the node runs, and taken back. A request whose body is not what it
 * should be changes nothing, nor does one that names a segment which was not mounted this way.
 */
import { errors } from '../../core/errors.js';
import type { Uuid } from '../../master/api.js';
import { type Answer, type Call, failed, json, type Routes } from './http.js';
import { formatId, parseId } from './ids.js';
import { fields } from './objects.js';
import { BAD_GRACE, checkProtocol, DONE, graceOf, idsOf, NO_IDS } from './segment-fields.js';

/** Sizes are rounded up to it, as stock does. */
const UNIT_BYTES = 16 * 2 ** 20;
const BAD_SIZE = json({ error: 'Invalid size, must be a positive integer' }, 400);

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
      'POST /api/unmount': (call) => this.#unmount(call),
      'POST /api/unmount_local_disk': (call) => this.#unmountDisk(call),
    };
  }

  async #mount(call: Call): Promise<Answer> {
    const { size, protocol } = await fields(call);
    if (!isCount(size)) return BAD_SIZE;
    checkProtocol(protocol);
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

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
