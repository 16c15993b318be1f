/**
 * The object table: what a metadata service knows of its objects, found by tenant and key. Keys are bytes; an object is
 * a fixed record in linear memory (assembly/objects, docs/objects.md), so ten million of them are no garbage collector's
 * business. Calls take batches of keys, and a batch crosses into WASM once.
 *
 * An object is known by its id, a positive integer below 2^53 that no later object has. Shards, each with a memory of up
 * to 4 GiB, show only in `shards`.
 */
import { options as checkOptions, integer, oneOf, typedArray } from './check.js';
import { errors } from './errors.js';
import { type Key, Keys, keyBytes, MAX_KEY_BYTES } from './keys.js';
import { ObjectRecords } from './objects-records.js';
import { BATCH, MAX_SHARDS, ObjectShard, TEXT_BYTES } from './objects-shard.js';

export interface ObjectTableOptions {
  /** Memories to spread the objects over, 1 to 64. One holds some 25 million objects. Default 1. */
  shards?: number;
  /** Upper bound of all memory, in bytes, at least 4 MiB a shard. Default 4 GiB a shard. */
  maxBytes?: number;
}

/** `lookup` protects from eviction; `read` protects too and is a use. */
export type LookupMode = 'lookup' | 'read';

export interface ObjectTableStats {
  objects: number;
  /** Distinct texts around the hashes of keys, each kept once. */
  templates: number;
  /** Cells of 128 bytes in use: one an object, one a template, more for keys and templates that do not fit in theirs. */
  cells: number;
  /** Bytes of memory that serve the table, and bytes of memory that it may use before it grows. */
  bytesUsed: number;
  bytes: number;
}

/** An object with this key exists already. */
export const OBJECT_EXISTS = -1;
/** The table's memory is full. */
export const OBJECT_TABLE_FULL = -2;

/** Recency lists, numbered from 0. */
export const OBJECT_LISTS = 8;

const LEAST_BYTES = 2 ** 22;
const SHARD_BYTES = 2 ** 32;
const AREA_BYTES = 2 ** 19;
const CELLS = 2 ** 25;
const MAX_U32 = 0xffff_ffff;
// What a lookup does (assembly/objects/batch.ts).
const FIND = 0;
const MODES = { lookup: 1, read: 2 } as const;
const LOOKUPS = ['lookup', 'read'] as const;
/** Cells that one slice of a scan looks at, beyond those it lists. */
const SCAN_LOOK = 65536;

// A byte order mark is part of a key like any other character.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

type Call = (shard: ObjectShard, count: number, stamp: number) => number;

function checkResults(out: unknown, length: number): asserts out is Float64Array {
  const expected = `a Float64Array of at least ${length} elements`;
  typedArray('out', out, out instanceof Float64Array, expected);
  if ((out as Float64Array).length < length) throw errors.invalidArgument('out', out, expected);
}

function lookupOf(mode: LookupMode, until: number, endedBy: number): number {
  const what = MODES[oneOf('mode', mode, LOOKUPS)];
  if (typeof until !== 'number' || Number.isNaN(until)) throw errors.invalidArgument('until', until, 'a number');
  if (typeof endedBy !== 'number' || Number.isNaN(endedBy)) {
    throw errors.invalidArgument('endedBy', endedBy, 'a number');
  }
  return what;
}

function checkIds(ids: unknown): void {
  if (!Array.isArray(ids) && !(ids instanceof Float64Array)) {
    throw errors.invalidArgument('ids', ids, 'a Float64Array or an array of ids');
  }
}

export class ObjectTable extends ObjectRecords {
  // Where each list's order was followed to in each shard.
  readonly #near: Uint32Array;
  readonly #one = new Float64Array(1);
  #stamp = 1;

  /** @throws ERR_INVALID_ARGUMENT; ERR_OUT_OF_MEMORY where not even empty memories can be had */
  constructor(options?: ObjectTableOptions) {
    super();
    const { shards = 1, maxBytes } = checkOptions('options', options);
    integer('shards', shards, 1, MAX_SHARDS);
    const bytes = maxBytes === undefined ? shards * SHARD_BYTES : maxBytes;
    integer('maxBytes', bytes, shards * LEAST_BYTES, Number.MAX_SAFE_INTEGER);
    // The hash function is chosen at random, so that nobody can choose keys that crowd one place.
    const [low, high] = crypto.getRandomValues(new Uint32Array(2));
    const each = Math.min(Math.floor(bytes / shards), SHARD_BYTES);
    for (let number = 0; number < shards; number++) this.shards.push(new ObjectShard(number, [low, high], each));
    this.#near = new Uint32Array(OBJECT_LISTS * shards);
  }

  /** Objects in the table. */
  get count(): number {
    return this.#figure(0);
  }

  stats(): ObjectTableStats {
    return {
      objects: this.#figure(0),
      templates: this.#figure(1),
      cells: this.#figure(2),
      bytesUsed: this.#figure(3) * AREA_BYTES,
      bytes: this.shards.reduce((sum, shard) => sum + shard.byteLength, 0),
    };
  }

  /** Id of the object with this key, whatever its state; 0 when there is none. */
  find(tenant: number, key: Key): number {
    this.#single(tenant, key, (shard, count, stamp) => shard.exports.objectsLookup(count, tenant, FIND, 0, 0, stamp));
    return this.#one[0];
  }

  /** The same for many: ids to `out`, key by key, 0 where there is none. Returns how many there are. */
  findMany(tenant: number, keys: Keys | readonly Key[], out: Float64Array): number {
    return this.#many(tenant, keys, out, (shard, count, stamp) =>
      shard.exports.objectsLookup(count, tenant, FIND, 0, 0, stamp),
    );
  }

  /**
   * Looks up objects for those who will read them: protects each complete one until `until` (or longer, where it was
   * already), as `leaseUntil` for reads and `lookupUntil` for lookups; a read also moves the object to the newest end of
   * its list. The protection of an earlier lookup is renewed only where it ended by `endedBy`. To `out`, key by key: the
   * id; 0 where there is no object; the negative of its id where its put has not ended. Returns how many are complete.
   */
  lookupMany(
    tenant: number,
    keys: Keys | readonly Key[],
    mode: LookupMode,
    until: number,
    out: Float64Array,
    endedBy = Number.POSITIVE_INFINITY,
  ): number {
    const what = lookupOf(mode, until, endedBy);
    return this.#many(tenant, keys, out, (shard, count, stamp) =>
      shard.exports.objectsLookup(count, tenant, what, until, endedBy, stamp),
    );
  }

  /** The same for one key: what `lookupMany` says of it. */
  lookup(tenant: number, key: Key, mode: LookupMode, until: number, endedBy = Number.POSITIVE_INFINITY): number {
    const what = lookupOf(mode, until, endedBy);
    this.#single(tenant, key, (shard, count, stamp) =>
      shard.exports.objectsLookup(count, tenant, what, until, endedBy, stamp),
    );
    return this.#one[0];
  }

  /** Makes an object, all fields 0, in no list: its id, or OBJECT_EXISTS, or OBJECT_TABLE_FULL. */
  insert(tenant: number, key: Key): number {
    this.#single(tenant, key, (shard, count) => this.#insert(shard, count, tenant));
    return this.#one[0];
  }

  /** The same for many, key by key to `out`; each stands on its own. Returns how many were made. */
  insertMany(tenant: number, keys: Keys | readonly Key[], out: Float64Array): number {
    return this.#many(tenant, keys, out, (shard, count) => this.#insert(shard, count, tenant));
  }

  /** Removes an object, also from its list. False when it is gone already. */
  remove(id: number): boolean {
    if (!this.has(id)) return false;
    this.shard(id).exports.objectsRemove(this.cell);
    return true;
  }

  tenant(id: number): number {
    return this.shard(id).exports.objectsTenant(this.cell) >>> 0;
  }

  /** The object's key, byte for byte, a copy. */
  key(id: number): Uint8Array {
    return this.#key(id).slice();
  }

  /** The same without a copy: a view that the next call of the table ends. */
  keyView(id: number): Uint8Array {
    return this.#key(id);
  }

  /** The object's key as text; bytes that are not UTF-8 show as U+FFFD. */
  keyText(id: number): string {
    return decoder.decode(this.#key(id));
  }

  /** The keys of many objects. */
  keys(ids: Float64Array | readonly number[]): Keys {
    checkIds(ids);
    return Keys.from(Array.from(ids, (id) => this.key(id)));
  }

  /**
   * Lists the table slice by slice: some ids, at most `most` and perhaps none, and the cursor to go on with, 0 at the
   * end. Begin with 0. An object that is in the table from the first slice to the last is listed exactly once; one that
   * was made or removed meanwhile may be listed or not.
   */
  scan(cursor: number, most = BATCH): { ids: Float64Array; cursor: number } {
    integer('cursor', cursor, 0, this.shards.length * CELLS - 1);
    integer('most', most, 1, BATCH);
    const shard = this.shards[Math.floor(cursor / CELLS)];
    const count = shard.exports.objectsScan(cursor % CELLS, most, SCAN_LOOK);
    const ids = shard.f64.slice(shard.results, shard.results + count);
    const next = shard.exports.objectsCursor() >>> 0;
    if (next > 0) return { ids, cursor: shard.number * CELLS + next };
    const following = shard.number + 1;
    return { ids, cursor: following < this.shards.length ? following * CELLS : 0 };
  }

  /** Puts an object at the newest end of a list, 0 to 7, out of the one that it is in. */
  link(id: number, list: number): void {
    integer('list', list, 0, OBJECT_LISTS - 1);
    const { exports } = this.shard(id);
    exports.objectsUnlink(this.cell);
    exports.objectsLink(this.cell, list, this.#stamp++);
  }

  /** Takes an object out of its list. False when it is in none. */
  unlink(id: number): boolean {
    return this.shard(id).exports.objectsUnlink(this.cell) !== 0;
  }

  /** The object of a list that was linked or used longest ago, or 0. */
  oldest(list: number): number {
    integer('list', list, 0, OBJECT_LISTS - 1);
    return this.#after(list, 0);
  }

  /** The object of the same list that was linked or used next after this one, or 0. Ask before removing this one. */
  newer(id: number): number {
    const list = this.list(id);
    if (list < 0) throw errors.invalidArgument('id', id, 'the id of an object that is in a list');
    return this.#after(list, this.stampOf(this.shard(id), this.cell));
  }

  /** Counts as a use of each: moves it to the newest end of its list, in this order. Returns how many are in a list. */
  touchMany(ids: Float64Array | readonly number[]): number {
    checkIds(ids);
    let touched = 0;
    for (let i = 0; i < ids.length; i++) {
      if (this.has(ids[i])) touched += this.shard(ids[i]).exports.objectsTouch(this.cell, this.#stamp++);
    }
    return touched;
  }

  // A view of the window.
  #key(id: number): Uint8Array {
    const shard = this.shard(id);
    return shard.u8.subarray(shard.text, shard.text + shard.exports.objectsKey(this.cell));
  }

  #figure(which: number): number {
    return this.shards.reduce((sum, shard) => sum + shard.exports.objectsFigure(which), 0);
  }

  #insert(shard: ObjectShard, count: number, tenant: number): number {
    const made = shard.exports.objectsInsert(count, tenant);
    shard.refresh();
    return made;
  }

  // The first object of a list, over all shards, that was used after a stamp.
  #after(list: number, stamp: number): number {
    let [first, least] = [0, Number.POSITIVE_INFINITY];
    for (const shard of this.shards) {
      const place = list * this.shards.length + shard.number;
      const cell = shard.exports.objectsAfter(list, stamp, this.#near[place]);
      this.#near[place] = cell;
      if (cell === 0) continue;
      const used = this.stampOf(shard, cell);
      if (used < least) [first, least] = [shard.idOf(cell), used];
    }
    return first;
  }

  // One key: its result lies in #one.
  #single(tenant: number, key: Key, call: Call): void {
    integer('tenant', tenant, 0, MAX_U32);
    const bytes = keyBytes('key', key);
    const shard = this.shards[0];
    shard.u32[shard.offsets] = 0;
    shard.u32[shard.offsets + 1] = bytes.length;
    shard.u8.set(bytes, shard.text);
    this.#dispatch(tenant, 1, 0, this.#one, call);
  }

  #many(tenant: number, keys: Keys | readonly Key[], out: Float64Array, call: Call): number {
    integer('tenant', tenant, 0, MAX_U32);
    const packed = Keys.from(keys);
    checkResults(out, packed.length);
    let total = 0;
    for (let first = 0; first < packed.length; ) {
      const count = this.#load(packed, first);
      total += this.#dispatch(tenant, count, first, out, call);
      first += count;
    }
    return total;
  }

  // Brings keys from `first` on into the window of shard 0, as many as fit; how many. The offsets were checked when the
  // keys were packed, but may lie in memory that others write.
  #load(keys: Keys, first: number): number {
    const { bytes, offsets, length } = keys;
    const shard = this.shards[0];
    const { u32 } = shard;
    const start = offsets[first];
    const most = Math.min(length - first, BATCH);
    let size = 0;
    let count = 0;
    u32[shard.offsets] = 0;
    for (; count < most; count++) {
      const end = offsets[first + count + 1] - start;
      if (!(end > size && end - size <= MAX_KEY_BYTES)) throw errors.invalidArgument('keys', keys, 'left unchanged');
      if (end > TEXT_BYTES) break;
      u32[shard.offsets + count + 1] = size = end;
    }
    if (start + size > bytes.length) throw errors.invalidArgument('keys', keys, 'left unchanged');
    shard.u8.set(size === bytes.length ? bytes : bytes.subarray(start, start + size), shard.text);
    return count;
  }

  // Runs a call on the keys in the window, or on each shard's part of them.
  #dispatch(tenant: number, count: number, first: number, out: Float64Array, call: Call): number {
    const { shards } = this;
    const stamp = this.#stamp;
    this.#stamp += count;
    const [router] = shards;
    if (shards.length === 1) {
      const total = call(router, count, stamp);
      if (count === 1) out[first] = router.f64[router.results];
      else out.set(router.f64.subarray(router.results, router.results + count), first);
      return total;
    }
    router.exports.objectsRoute(count, tenant, shards.length);
    const starts = router.u32.slice(router.routedStarts, router.routedStarts + shards.length + 1);
    const order = router.u32.slice(router.order, router.order + count);
    let total = 0;
    for (const shard of shards) {
      const [from, to] = [starts[shard.number], starts[shard.number + 1]];
      if (from === to) continue;
      const offsets = router.u32.subarray(router.routedOffsets + from, router.routedOffsets + to + 1);
      const [begin, end] = [offsets[0], offsets[to - from]];
      shard.u8.set(router.u8.subarray(router.routed + begin, router.routed + end), shard.text + begin);
      shard.u32.set(offsets, shard.offsets);
      shard.u32.set(order.subarray(from, to), shard.order);
      total += call(shard, to - from, stamp);
      for (let j = from; j < to; j++) out[first + order[j]] = shard.f64[shard.results + j - from];
    }
    return total;
  }
}
