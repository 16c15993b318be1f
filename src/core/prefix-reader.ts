/**
 * A reader of a shared prefix index on another thread. The writer makes a handle, which goes by postMessage; the reader
 * attaches to the same memory and matches there without a lock: it takes the writer's version before and after, and
 * tries again when the index changed meanwhile.
 */
import { options as checkOptions, integer, oneOf } from './check.js';
import { errors } from './errors.js';
import { checkHashes, type Hashes, isApproximate, type KeyWidth } from './prefix-keys.js';
import { PrefixMatch } from './prefix-match.js';
import { KEY_BYTES, type QueryExports, query, RESULT_BYTES, ROW_WORDS } from './prefix-query.js';
import { type Core, instantiate } from './wasm.js';

/** What a reader needs to attach; structured clone carries it. One handle serves one reader at a time. */
export interface PrefixReaderHandle {
  readonly memory: WebAssembly.Memory;
  readonly keyWidth: KeyWidth;
  /** Address of this reader's result, and behind it room for hashes. */
  readonly slot: number;
  /** Bytes of that room. */
  readonly room: number;
  /** Address of the count of rows to read. */
  readonly rows: number;
  /** Names of the instances by id when the handle was made. */
  readonly names: readonly (string | undefined)[];
  /** Address of the count of names given to instances, and behind it the place of each id's name in that count. */
  readonly named: number;
  /** That count when the handle was made. */
  readonly given: number;
}

interface ReaderExports extends QueryExports {
  prefixNarrow(hashes: number, width: number, count: number): void;
  prefixMatch(result: number, hashes: number, count: number, group: number): number;
}

const WIDTHS = [8, 16, 32] as const;
const MAX_GROUP = 15;
// Attempts, a microsecond or two each, before the caller is told.
const ATTEMPTS = 256;

// The fields that this reader will write by, copied: a wrong address would hit the index itself.
function checkHandle(handle: PrefixReaderHandle): PrefixReaderHandle {
  const expected = 'what reader() of a shared index returned';
  if (typeof handle !== 'object' || handle === null) throw errors.invalidArgument('handle', handle, expected);
  const { memory, keyWidth, slot, room, rows, names, named, given } = handle;
  if (!(memory instanceof WebAssembly.Memory) || !Array.isArray(names)) {
    throw errors.invalidArgument('handle', handle, expected);
  }
  // The global SharedArrayBuffer may be absent; a memory's buffer is one of the two.
  const buffer: object = memory.buffer;
  if (buffer instanceof ArrayBuffer) throw errors.invalidArgument('handle.memory', memory, 'a shared memory');
  const end = memory.buffer.byteLength;
  oneOf('handle.keyWidth', keyWidth, WIDTHS);
  integer('handle.rows', rows, 4, end);
  integer('handle.named', named, rows, end - 4 * (1 + names.length));
  integer('handle.given', given, 0, 0xffff_ffff);
  integer('handle.room', room, 0, end);
  integer('handle.slot', slot, rows, end - RESULT_BYTES - KEY_BYTES - room);
  if (slot % 16 !== 0) throw errors.invalidArgument('handle.slot', slot, 'a multiple of 16');
  return { memory, keyWidth, slot, room, rows, names, named, given };
}

export class PrefixReader {
  readonly keyWidth: KeyWidth;
  /** The core over the index's memory: what hashes into `roomAt` calls its functions. */
  readonly core: Core<ReaderExports>;
  /** Address of `room` bytes that belong to this reader, for hashes in this memory. */
  readonly roomAt: number;
  readonly room: number;
  readonly #handle: PrefixReaderHandle;
  #names: PrefixReaderHandle['names'];
  #given: number;

  private constructor(handle: PrefixReaderHandle) {
    this.#handle = handle;
    this.#names = handle.names;
    this.#given = handle.given;
    this.core = instantiate<ReaderExports>({ shared: true, memory: handle.memory });
    this.keyWidth = handle.keyWidth;
    this.roomAt = handle.slot + RESULT_BYTES + KEY_BYTES;
    this.room = handle.room;
  }

  /** Attaches to an index of this or another thread. */
  static attach(handle: PrefixReaderHandle): PrefixReader {
    return new PrefixReader(checkHandle(handle));
  }

  /**
   * As PrefixIndex.match. Instances added after the handle was made have no name here, only an id, also where that id
   * belonged to another.
   * @throws ERR_BUSY when the writer changed the index during every attempt; try again
   */
  match(hashes: Hashes, options?: { group?: number }): PrefixMatch {
    const { group = 0 } = checkOptions('options', options);
    const checked = checkHashes('hashes', hashes, this.keyWidth);
    return this.#result(this.#query(checked, group), isApproximate(checked, this.keyWidth));
  }

  /** As PrefixIndex.matchInto: `out` has a place for each instance. */
  matchInto(hashes: Hashes, out: Uint32Array, group = 0): number {
    const matched = this.#query(checkHashes('hashes', hashes, this.keyWidth), group);
    const { u32 } = this.core;
    const instances = u32[this.#handle.rows >>> 2];
    if (!ArrayBuffer.isView(out) || !(out instanceof Uint32Array) || out.length < instances) {
      throw errors.invalidArgument('out', out, `a Uint32Array of at least ${instances} elements`);
    }
    let at = (this.#handle.slot >>> 2) + ROW_WORDS - 1;
    for (let id = 0; id < instances; id++, at += ROW_WORDS) out[id] = u32[at];
    return matched;
  }

  /**
   * Matches `count` hashes of `width` bytes that lie at `roomAt`, written there by a function of `core`. On an index of
   * 8-byte keys hashes are turned into keys in place.
   */
  matchHere(count: number, width: KeyWidth = this.keyWidth, group = 0): PrefixMatch {
    oneOf('width', width, this.keyWidth === 8 ? WIDTHS : [this.keyWidth]);
    integer('count', count, 0, Math.floor(this.room / width));
    integer('group', group, 0, MAX_GROUP);
    const { exports } = this.core;
    if (this.keyWidth === 8) exports.prefixNarrow(this.roomAt, width, count);
    const matched = exports.prefixMatch(this.#handle.slot, this.roomAt, count, group);
    if (matched < 0) throw errors.busy('the prefix index');
    return this.#result(matched, width > this.keyWidth);
  }

  #query(hashes: Hashes, group: number): number {
    integer('group', group, 0, MAX_GROUP);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const matched = query(this.core, this.#handle.slot, hashes, this.keyWidth, group);
      if (matched >= 0) return matched;
    }
    throw errors.busy('the prefix index');
  }

  #result(matched: number, approximate: boolean): PrefixMatch {
    const { slot, rows, named, given } = this.#handle;
    const { u32 } = this.core;
    const at = named >>> 2;
    if (u32[at] !== this.#given) {
      this.#given = u32[at];
      this.#names = this.#names.map((name, id) => (u32[at + 1 + id] <= given ? name : undefined));
    }
    const from = slot >>> 2;
    return new PrefixMatch(matched, approximate, u32.slice(from, from + ROW_WORDS * u32[rows >>> 2]), this.#names);
  }
}
