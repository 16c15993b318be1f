/**
 * The REST API of segments over memory of other programs (`mount_shm`, by its name in /dev/shm), and stock's switch of a node between
 * the halves of an engine (`reconfigure`): `decode` lends memory by its path in place of what it lent before, `prefill` takes it
 * back.
 */
import { errors } from '../../core/errors.js';
import type { Uuid } from '../../master/api.js';
import { type Answer, type Call, failed, json, type Routes } from './http.js';
import { formatId, parseId } from './ids.js';
import type { FileRange } from './mapped.js';
import { fields } from './objects.js';
import { BAD_GRACE, checkProtocol, DONE, graceOf, idsOf, NO_IDS } from './segment-fields.js';

const FOLDER = '/dev/shm/';
const BAD_NAME = json({ error: 'Missing or invalid name or size' }, 400);
const BAD_MODE = json({ error: "Invalid mode. Use 'decode' or 'prefill'" }, 400);
const NO_PATH = json({ error: 'Missing path or size for decode mode' }, 400);

/** Who lends the memory. */
export interface FileLender {
  /** The segments of `instead` that have bytes of it are taken back before. */
  mountFile(range: FileRange, instead: readonly Uuid[]): Promise<Uuid>;
  lends(segment: Uuid): boolean;
  unmount(segment: Uuid, graceMs: number): Promise<void>;
}

export class SharedSegmentApi {
  readonly routes: Routes;
  readonly #lender: FileLender;
  /** Mounted by requests. */
  readonly #mounted = new Set<Uuid>();
  /** Those that the switch to `decode` has mounted. */
  #decoding: Uuid[] = [];
  #mode: 'decode' | 'prefill' = 'prefill';
  /** Changes come one after another. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(lender: FileLender) {
    this.#lender = lender;
    this.routes = {
      'POST /api/mount_shm': (call) => this.#mountShm(call),
      'POST /api/unmount_shm': (call) => this.#unmountShm(call),
      'POST /api/reconfigure': (call) => this.#reconfigure(call),
    };
  }

  async #mountShm(call: Call): Promise<Answer> {
    const { name, size, offset, protocol } = await fields(call);
    const path = pathOf(name);
    if (path === undefined || size === undefined || size === null) return BAD_NAME;
    const range = rangeOf(path, size, offset, protocol);
    return this.#inTurn(async () => {
      try {
        return json({ status: 'success', segment_ids: (await this.#mount(range)).map(formatId) });
      } catch (error) {
        return failed({ error: 'Mount failed, ret=-1' }, error);
      }
    });
  }

  async #unmountShm(call: Call): Promise<Answer> {
    const asked = await fields(call);
    const ids = idsOf(asked.segment_ids);
    if (!ids) return NO_IDS;
    const graceMs = graceOf(asked.grace_period_seconds);
    if (graceMs === undefined) return BAD_GRACE;
    return this.#inTurn(async () => {
      const failures: string[] = [];
      let reason: unknown;
      for (const text of ids) {
        try {
          await this.#unmount(text, graceMs);
        } catch (error) {
          failures.push(text);
          reason = error;
        }
      }
      if (this.#decoding.length === 0) this.#mode = 'prefill';
      if (failures.length === 0) return DONE;
      return failed({ error: 'Unmount failed for one or more segments', failed_segment_ids: failures }, reason);
    });
  }

  async #reconfigure(call: Call): Promise<Answer> {
    const { mode, path, size, offset, protocol } = await fields(call);
    const wanted = typeof mode === 'string' ? mode.toLowerCase() : mode === undefined ? '' : undefined;
    if (wanted === undefined) throw errors.invalidArgument('mode', mode, 'a string');
    if (wanted === 'prefill') return this.#inTurn(() => this.#prefill());
    if (wanted !== 'decode') return BAD_MODE;
    if (!path || size === undefined || size === null) return NO_PATH;
    const range = rangeOf(path, size, offset, protocol);
    return this.#inTurn(() => this.#decode(range));
  }

  /** The new memory is lent before the old is taken back, where they are not the same. */
  async #decode(range: FileRange): Promise<Answer> {
    const before = this.#decoding;
    let ids: Uuid[];
    try {
      ids = await this.#mount(range, before);
    } catch (error) {
      this.#decoding = before.filter((id) => this.#lender.lends(id));
      if (this.#decoding.length > 0) {
        return failed({ error: 'Mount failed, ret=-1; keeping previous decode segments', mode: this.#mode }, error);
      }
      this.#mode = 'prefill';
      return failed({ error: 'Mount failed, ret=-1; rolled back to prefill', mode: this.#mode }, error);
    }
    this.#decoding = [...ids, ...(await this.#takeBack(before)).left];
    this.#mode = 'decode';
    return json({ status: 'success', mode: this.#mode, segment_ids: this.#decoding.map(formatId) });
  }

  async #prefill(): Promise<Answer> {
    const { left, reason } = await this.#takeBack(this.#decoding);
    this.#decoding = left;
    if (left.length > 0) return failed({ error: 'Unmount failed, ret=-1' }, reason);
    this.#mode = 'prefill';
    return json({ status: 'success', mode: this.#mode });
  }

  /** Nothing is lent for a size of 0, as on stock. */
  async #mount(range: FileRange, instead: readonly Uuid[] = []): Promise<Uuid[]> {
    if (range.length === 0) return [];
    const id = await this.#lender.mountFile(range, instead);
    this.#mounted.add(id);
    return [id];
  }

  async #unmount(text: string, graceMs: number): Promise<void> {
    const id = parseId(text);
    if (id === undefined || !this.#mounted.has(id)) {
      throw errors.segment('segment_ids', text, 'was not mounted by /api/mount_shm or /api/reconfigure');
    }
    await this.#lender.unmount(id, graceMs);
    this.#mounted.delete(id);
    this.#decoding = this.#decoding.filter((one) => one !== id);
  }

  /** Takes back what is still there; those that could not be, and why. */
  async #takeBack(ids: readonly Uuid[]): Promise<{ left: Uuid[]; reason?: unknown }> {
    const left: Uuid[] = [];
    let reason: unknown;
    for (const id of ids) {
      try {
        if (this.#lender.lends(id)) await this.#lender.unmount(id, 0);
        this.#mounted.delete(id);
      } catch (error) {
        left.push(id);
        reason = error;
      }
    }
    return { left, reason };
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}

/** Undefined for what is no name of shared memory. */
function pathOf(name: unknown): string | undefined {
  if (typeof name !== 'string') return undefined;
  const plain = name.replace(/^\//, '');
  return plain === '' || plain.includes('/') || plain === '.' || plain === '..' ? undefined : FOLDER + plain;
}

/** Throws ERR_INVALID_ARGUMENT. */
function rangeOf(path: unknown, size: unknown, offset: unknown, protocol: unknown): FileRange {
  checkProtocol(protocol);
  const count = (field: string, value: unknown) => {
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw errors.invalidArgument(field, value, 'a non-negative integer');
  };
  if (typeof path !== 'string' || path.includes('\0')) throw errors.invalidArgument('path', path, 'a path');
  return { path, length: count('size', size), offset: count('offset', offset === undefined ? 0 : offset) };
}
