/**
 * The prefix index: which instance has which leading blocks of a prompt, on which tier. A radix tree over chained block
 * hashes in linear memory (assembly/prefix, docs/prefix-index.md), one writer, and with `shared` any number of readers
 * on other threads (prefix-reader.ts).
 */
import { BlockHashes } from './block-hashes.js';
import { boolean, bytes as checkBytes, options as checkOptions, integer, oneOf, string } from './check.js';
import { errors } from './errors.js';
import {
  checkHashes,
  type Hash,
  type Hashes,
  hashCount,
  isApproximate,
  type KeyWidth,
  keyBytes,
  single,
  writeKeys,
} from './prefix-keys.js';
import { PrefixMatch, TIERS, type Tier } from './prefix-match.js';
import { KEY_BYTES, type QueryExports, query, RESULT_BYTES, ROW_WORDS } from './prefix-query.js';
import type { PrefixReaderHandle } from './prefix-reader.js';
import { readSnapshot, restore, type SnapshotExports, writeSnapshot } from './prefix-snapshot.js';
import { type Core, instantiate } from './wasm.js';

/** What assembly/prefix exports, as far as the index calls it. */
export interface PrefixExports extends QueryExports, SnapshotExports {
  prefixInit(width: number, multiplierLow: number, multiplierHigh: number, limit: number): number;
  prefixHeader(): number;
  prefixScratch(size: number): number;
  prefixSlot(size: number): number;
  prefixRows(rows: number): void;
  prefixHas(key: number): number;
  prefixNarrow(hashes: number, width: number, count: number): void;
  prefixInsert(holder: number, hashes: number, count: number, parent: number): number;
  prefixTouch(hashes: number, count: number): number;
  prefixRemove(holder: number, hashes: number, count: number): number;
  prefixClear(holder: number, mask: number): number;
  prefixOrderStart(): void;
  prefixOrderNext(holder: number, mask: number, out: number, room: number): number;
  prefixCheck(marks: number): number;
}

export const MAX_INSTANCES = 1024;
export const MAX_GROUPS = 16;
/** Blocks of one query or insertion: 16 million tokens at the usual 16 a block. */
export const MAX_HASHES = 1 << 20;

export interface PrefixIndexOptions {
  /** Bytes of a key, 8, 16 or 32. Default 32. An index of 8-byte keys compares the low 64 bits of wider hashes. */
  keyWidth?: KeyWidth;
  /** Shared memory, so that readers on other threads can match while this thread writes. Default false. */
  shared?: boolean;
  /** Upper bound of the index's memory in bytes. Default 4 GiB. */
  maxBytes?: number;
  /** Most instances at a time, at most 1,024, the default. */
  maxInstances?: number;
}

/**
 * Whose blocks: a tier (default gpu) and a KV-cache group (0 to 15, default 0). Where vLLM gives a group larger blocks,
 * their hashes are those of small ones under other parents: the index keeps both apart.
 */
export interface HolderOptions {
  tier?: Tier;
  group?: number;
}

export interface InsertOptions extends HolderOptions {
  /**
   * Hash of the block before the first; without it the first block is the first of a prompt. Where the index has it
   * under several parents, the one is meant that this instance, tier and group has.
   */
  parent?: Hash;
}

export interface OrderOptions {
  /** Only what this instance, this tier, this group holds. Default: all. */
  instance?: number | string;
  tier?: Tier;
  group?: number;
  /** Most hashes to list. Default: all. */
  limit?: number;
}

export interface PrefixStats {
  /** Distinct blocks; one under two parents counts twice. */
  blocks: number;
  /** Runs of blocks, the nodes of the tree. */
  nodes: number;
  /** Pairs of a block and a holder (instance, tier and group). */
  held: number;
  instances: number;
  /** Insertions whose parent the index did not know, or not which one: nothing was recorded, their blocks are misses. */
  orphans: number;
  /** Bytes in use, and bytes of memory they lie in. */
  bytesUsed: number;
  bytes: number;
}

// assembly/prefix/header.ts and match.ts
const TOP = 12 >> 2;
const BLOCKS = 44 >> 2;
const NODES = 68 >> 2;
const HELD = 96 >> 3;
const ROWS = 104;
const ORPHAN = -3;

// A parent's key lies before the hashes.
const HASHES_AT = 32;
const LEAST_SCRATCH = 32768;
const NAMED_BYTES = 4 * (1 + MAX_INSTANCES);
const ALL_MEMORY = 4 * 1024 ** 3;

export class PrefixIndex {
  readonly keyWidth: KeyWidth;
  readonly shared: boolean;
  readonly maxInstances: number;
  readonly #core: Core<PrefixExports>;
  readonly #result: number;
  readonly #header: number;
  // How many names were given, and for each id which of them is its: tells readers that an id has another name now.
  readonly #named: number;
  readonly #names: (string | undefined)[] = [];
  readonly #ids = new Map<string, number>();
  #removals = 0;
  #scratch = 0;
  #scratchSize = 0;
  #orphans = 0;

  constructor(options?: PrefixIndexOptions) {
    const {
      keyWidth = 32,
      shared = false,
      maxBytes = ALL_MEMORY,
      maxInstances = MAX_INSTANCES,
    } = checkOptions('options', options);
    this.keyWidth = oneOf('keyWidth', keyWidth, [8, 16, 32] as const);
    this.shared = boolean('shared', shared);
    integer('maxBytes', maxBytes, 1, Number.MAX_SAFE_INTEGER);
    this.maxInstances = integer('maxInstances', maxInstances, 1, MAX_INSTANCES);
    const limit = Math.min(maxBytes, ALL_MEMORY);
    this.#core = instantiate<PrefixExports>({ shared: this.shared, maxBytes: limit });
    const { exports } = this.#core;
    // The table's hash function is chosen at random, so that nobody can choose keys that crowd it.
    const [low, high] = [Math.random() * 2 ** 32, Math.random() * 2 ** 32];
    const started = exports.prefixInit(this.keyWidth, low >>> 0, high >>> 0, Math.min(limit, 0xffff_ffff));
    this.#result = started ? exports.prefixSlot(KEY_BYTES + NAMED_BYTES) >>> 0 : 0;
    if (this.#result === 0) throw errors.outOfMemory('maxBytes', maxBytes);
    // So that blocks can be listed and removed when the memory is full.
    this.#reserve(LEAST_SCRATCH);
    this.#named = this.#result + RESULT_BYTES + KEY_BYTES;
    this.#header = exports.prefixHeader() >>> 0;
  }

  /** Adds an instance, or finds the one of this name. Returns its id, 0 to maxInstances - 1. */
  addInstance(name: string): number {
    const known = this.#ids.get(string('name', name));
    if (known !== undefined) return known;
    let id = this.#names.indexOf(undefined);
    if (id < 0) id = this.#names.length;
    if (id >= this.maxInstances) {
      throw errors.invalidArgument('name', name, `one of at most ${this.maxInstances} instances (maxInstances)`);
    }
    this.#names[id] = name;
    this.#ids.set(name, id);
    const { u32 } = this.#core;
    const named = this.#named >>> 2;
    u32[named + 1 + id] = ++u32[named];
    this.#core.exports.prefixRows(this.#names.length);
    return id;
  }

  /** Id of the instance of this name, or undefined. */
  instanceId(name: string): number | undefined {
    return this.#ids.get(string('name', name));
  }

  /** Name of an instance, or undefined. */
  instanceName(id: number): string | undefined {
    return this.#names[integer('id', id, 0, MAX_INSTANCES - 1)];
  }

  /** How many instances were removed so far: as long as this stays the same, an id means the same instance. */
  get removals(): number {
    return this.#removals;
  }

  /** Forgets an instance and all it holds; its id may be given to another. Returns the pairs of block and holder gone. */
  removeInstance(instance: number | string): number {
    const id = this.#instance(instance);
    const removed = this.clear(id);
    this.#ids.delete(this.#names[id]!);
    this.#names[id] = undefined;
    this.#removals++;
    return removed;
  }

  /**
   * Records that an instance has these consecutive blocks, and that the path to them was used just now. Returns how many
   * it did not have before. Without `parent` the first block starts a prompt. Where the index does not know `parent`, or
   * not which one is meant, nothing is recorded and 0 returned: the position of the blocks is in doubt, and doubt is a
   * miss (`stats().orphans` counts them).
   * @throws ERR_OUT_OF_MEMORY when the index may not grow; a part of the blocks may be recorded
   */
  insert(instance: number | string, hashes: Hashes, options?: InsertOptions): number {
    const { tier, group, parent } = checkOptions('options', options);
    const holder = this.#holder(this.#instance(instance), tier, group);
    const before = parent === undefined ? undefined : single('parent', parent, this.keyWidth);
    const [at, count] = this.#write(hashes);
    const above = before === undefined ? 0 : at - HASHES_AT;
    if (before !== undefined) writeKeys(this.#core, above, before, this.keyWidth);
    const added = this.#core.exports.prefixInsert(holder, at, count, above);
    if (added >= 0) return added;
    if (added !== ORPHAN) throw this.#full();
    this.#orphans++;
    return 0;
  }

  /** The longest prefix of these blocks that each instance has, per tier, in one KV-cache group (default 0). */
  match(hashes: Hashes, options?: { group?: number }): PrefixMatch {
    const { group = 0 } = checkOptions('options', options);
    const checked = checkHashes('hashes', hashes, this.keyWidth);
    integer('group', group, 0, MAX_GROUPS - 1);
    const matched = query(this.#core, this.#result, checked, this.keyWidth, group);
    const from = this.#result >>> 2;
    const rows = this.#core.u32.slice(from, from + ROW_WORDS * this.#names.length);
    return new PrefixMatch(matched, isApproximate(checked, this.keyWidth), rows, [...this.#names]);
  }

  /**
   * The same without an object: writes the leading blocks that each instance has on any mixture of its tiers to
   * `out[id]` and returns how many anyone holds. `out` has a place for each id given so far.
   */
  matchInto(hashes: Hashes, out: Uint32Array, group = 0): number {
    const instances = this.#names.length;
    if (!ArrayBuffer.isView(out) || !(out instanceof Uint32Array) || out.length < instances) {
      throw errors.invalidArgument('out', out, `a Uint32Array of at least ${instances} elements`);
    }
    const checked = checkHashes('hashes', hashes, this.keyWidth);
    integer('group', group, 0, MAX_GROUPS - 1);
    const matched = query(this.#core, this.#result, checked, this.keyWidth, group);
    const rows = this.#core.u32;
    let at = (this.#result >>> 2) + 3;
    for (let id = 0; id < instances; id++, at += ROW_WORDS) out[id] = rows[at];
    return matched;
  }

  /** Records a use of the leading blocks that the index knows. Returns how many. */
  touch(hashes: Hashes): number {
    const [at, count] = this.#write(hashes);
    const touched = this.#core.exports.prefixTouch(at, count);
    if (touched < 0) throw this.#full();
    return touched;
  }

  /**
   * Records that an instance no longer has these blocks, in whatever order and wherever they are in their chains; what
   * it holds after them stays held, but no prefix reaches it. Returns how many it had.
   * @throws ERR_OUT_OF_MEMORY when a hole needs a node more than the memory has room for; a part may be removed
   */
  remove(instance: number | string, hashes: Hashes, options?: HolderOptions): number {
    const { tier, group } = checkOptions('options', options);
    const holder = this.#holder(this.#instance(instance), tier, group);
    const [at, count] = this.#write(hashes);
    const removed = this.#core.exports.prefixRemove(holder, at, count);
    if (removed < 0) throw this.#full();
    return removed;
  }

  /** Takes everything from an instance, or from one tier or group of it. Returns the pairs of block and holder gone. */
  clear(instance: number | string, options?: HolderOptions): number {
    const { tier, group } = checkOptions('options', options);
    const [holder, mask] = this.#filter(this.#instance(instance), tier, group);
    return this.#core.exports.prefixClear(holder, mask);
  }

  /** Whether the index knows a block, wherever it is. */
  has(hash: Hash): boolean {
    const [at] = this.#write(single('hash', hash, this.keyWidth));
    return this.#core.exports.prefixHas(at) !== 0;
  }

  /**
   * The blocks that are held, least recently used first, every block before those it follows: evicting from the front
   * never leaves a hole. An insertion or a touch is a use of its blocks and of all before them.
   */
  evictionOrder(options?: OrderOptions): BlockHashes {
    const { instance, tier, group, limit = Number.MAX_SAFE_INTEGER } = checkOptions('options', options);
    const [holder, mask] = this.#filter(instance, tier, group);
    let left = integer('limit', limit, 0, Number.MAX_SAFE_INTEGER);
    const { exports } = this.#core;
    const width = this.keyWidth;
    const window = this.#reserve(LEAST_SCRATCH);
    const most = LEAST_SCRATCH / width;
    const parts: Uint8Array[] = [];
    let size = 0;
    exports.prefixOrderStart();
    while (left > 0) {
      const count = exports.prefixOrderNext(holder, mask, window, Math.min(left, most));
      if (count === 0) break;
      if (width === 8) exports.prefixNarrow(window, width, count);
      parts.push(this.#core.u8.slice(window, window + count * width));
      size += count * width;
      left -= count;
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return new BlockHashes(bytes, width);
  }

  stats(): PrefixStats {
    const { u32, u64, byteLength } = this.#core;
    const header = this.#header >>> 2;
    return {
      blocks: u32[header + BLOCKS],
      nodes: u32[header + NODES],
      held: Number(u64[(this.#header >>> 3) + HELD]),
      instances: this.#ids.size,
      orphans: this.#orphans,
      bytesUsed: u32[header + TOP],
      bytes: byteLength,
    };
  }

  /**
   * The whole index in bytes: instances, blocks, who holds them, and their order of use. The same index gives the same
   * bytes.
   * @throws ERR_OUT_OF_MEMORY when the index may not grow by the megabyte and more that writing takes
   */
  snapshot(): Uint8Array {
    const { blocks, nodes } = this.stats();
    const contents = { keyWidth: this.keyWidth, blocks, nodes, names: this.#names };
    return writeSnapshot(this.#core, (size) => this.#reserve(size), contents);
  }

  /**
   * An index that answers as the one that `snapshot` was taken of. The key width is the snapshot's; one in `options`
   * must be the same.
   * @throws ERR_SNAPSHOT when it is cut off, corrupt, of another version or key width, or contradicts itself
   */
  static load(snapshot: Uint8Array | ArrayBuffer, options?: PrefixIndexOptions): PrefixIndex {
    const contents = readSnapshot(checkBytes('snapshot', snapshot));
    const wanted = checkOptions('options', options);
    const { keyWidth, names } = contents;
    if (wanted.keyWidth !== undefined && wanted.keyWidth !== keyWidth) {
      throw errors.snapshot(`keys of ${keyWidth} bytes where ${wanted.keyWidth} are wanted`, 'keyWidth', keyWidth);
    }
    const index = new PrefixIndex({ ...wanted, keyWidth });
    if (names.length > index.maxInstances) {
      throw errors.snapshot(
        `${names.length} instances where ${index.maxInstances} are wanted`,
        'maxInstances',
        names.length,
      );
    }
    index.#names.push(...names);
    names.forEach((name, id) => void (name !== undefined && index.#ids.set(name, id)));
    index.#core.exports.prefixRows(names.length);
    restore(index.#core, (size) => index.#reserve(size), contents);
    return index;
  }

  /**
   * A handle for one reader on another thread (PrefixReader.attach), with room for `room` bytes of hashes in this memory.
   * It keeps its place in the memory as long as the index lives: make one for each thread, not for each query.
   * @throws ERR_NOT_SUPPORTED when the index is not shared
   */
  reader(options?: { room?: number }): PrefixReaderHandle {
    const { room = 0 } = checkOptions('options', options);
    if (!this.shared) {
      throw errors.notSupported('a reader of a private index', 'make the index with { shared: true }');
    }
    integer('room', room, 0, MAX_HASHES * 32);
    const slot = this.#core.exports.prefixSlot(KEY_BYTES + room) >>> 0;
    if (slot === 0) throw errors.outOfMemory('room', room);
    const { memory, u32 } = this.#core;
    const [keyWidth, rows, named, names] = [this.keyWidth, this.#header + ROWS, this.#named, [...this.#names]];
    return { memory, keyWidth, slot, room, rows, names, named, given: u32[named >>> 2] };
  }

  /** Checks the invariants of the whole structure (assembly/prefix/check.ts): 0 when all hold. For tests. */
  check(): number {
    const size = 4 * this.#core.exports.prefixNodeIds();
    const marks = this.#reserve(size);
    this.#core.u8.fill(0, marks, marks + size);
    return this.#core.exports.prefixCheck(marks);
  }

  #instance(instance: number | string): number {
    const id = typeof instance === 'string' ? this.#ids.get(instance) : instance;
    if (typeof id !== 'number' || this.#names[id] === undefined) {
      throw errors.invalidArgument('instance', instance, 'the id or name of an instance of this index');
    }
    return id;
  }

  // group (4 bits), tier (2), instance (10): assembly/prefix/holders.ts
  #holder(instance: number, tier: Tier = 'gpu', group = 0): number {
    return (
      (integer('group', group, 0, MAX_GROUPS - 1) << 12) | (TIERS.indexOf(oneOf('tier', tier, TIERS)) << 10) | instance
    );
  }

  #filter(instance?: number | string, tier?: Tier, group?: number): [holder: number, mask: number] {
    const id = instance === undefined ? 0 : this.#instance(instance);
    const mask =
      (instance === undefined ? 0 : 0x3ff) | (tier === undefined ? 0 : 0xc00) | (group === undefined ? 0 : 0xf000);
    return [this.#holder(id, tier, group), mask];
  }

  // Brings the hashes of a call over, with room for a parent before them.
  #write(hashes: Hashes): [at: number, count: number] {
    const checked = checkHashes('hashes', hashes, this.keyWidth);
    if (hashCount(checked, this.keyWidth) > MAX_HASHES) {
      throw errors.invalidArgument('hashes', hashes, `at most ${MAX_HASHES} hashes`);
    }
    const at = this.#reserve(HASHES_AT + keyBytes(checked)) + HASHES_AT;
    return [at, writeKeys(this.#core, at, checked, this.keyWidth)];
  }

  #reserve(size: number): number {
    if (size > this.#scratchSize) {
      this.#scratch = this.#core.exports.prefixScratch(size) >>> 0;
      if (this.#scratch === 0) {
        this.#scratchSize = 0;
        throw errors.outOfMemory('hashes', size);
      }
      this.#scratchSize = size;
    }
    return this.#scratch;
  }

  #full(): Error {
    return errors.outOfMemory('the prefix index', this.#core.byteLength);
  }
}
