/**
 * One shard of an object table: a core instance whose memory is one table (assembly/objects), with views of it and the
 * window through which keys and results pass.
 */
import { errors } from './errors.js';
import { type Core, instantiate } from './wasm.js';

export interface ShardExports {
  objectsInit(seedLow: number, seedHigh: number, shard: number): number;
  objectsWindow(part: number): number;
  objectsLookup(count: number, tenant: number, mode: number, until: number, endedBy: number, stamp: number): number;
  objectsInsert(count: number, tenant: number): number;
  objectsRoute(count: number, tenant: number, shards: number): void;
  objectsRemove(cell: number): void;
  objectsTenant(cell: number): number;
  objectsKey(cell: number): number;
  objectsScan(from: number, most: number, look: number): number;
  objectsCursor(): number;
  objectsLink(cell: number, list: number, stamp: number): void;
  objectsUnlink(cell: number): number;
  objectsTouch(cell: number, stamp: number): number;
  objectsAfter(list: number, stamp: number, near: number): number;
  objectsFigure(which: number): number;
}

/** Keys of one call, and bytes of them (assembly/objects/header.ts). */
export const BATCH = 1024;
export const TEXT_BYTES = 0x20000;
const AREAS = 0x11000;
const CELLS = 2;

// An id is a shard (6 bits), a cell's generation (22 bits) and the cell (25 bits): a safe integer.
export const MAX_SHARDS = 64;
const SHARD = 2 ** 47;
const GENERATION = 2 ** 25;
const GENERATION_MASK = 0x3f_ffff;
const CELL_MASK = 0x1ff_ffff;
/** Cells of 128 bytes, of which 4,096 make an area (assembly/objects/cells.ts). */
const OBJECT = 3;

/** Shard of an id. */
export function shardOf(id: number): number {
  return (id / SHARD) | 0;
}

export class ObjectShard {
  readonly number: number;
  readonly exports: ShardExports;
  /** The window, as indices of elements: of 32 bits, of 64 (results) and of 8 (texts). */
  readonly offsets: number;
  readonly order: number;
  readonly results: number;
  readonly text: number;
  readonly routed: number;
  readonly routedOffsets: number;
  readonly routedStarts: number;
  readonly #core: Core<ShardExports>;
  #u8!: Uint8Array;
  #u32!: Uint32Array;
  #f64!: Float64Array;
  #u64!: BigUint64Array;

  /** @throws ERR_OUT_OF_MEMORY when `maxBytes` do not hold an empty table */
  constructor(number: number, seed: readonly [low: number, high: number], maxBytes: number) {
    this.number = number;
    this.#core = instantiate<ShardExports>({ maxBytes });
    this.exports = this.#core.exports;
    if (!this.exports.objectsInit(seed[0], seed[1], number)) throw errors.outOfMemory('maxBytes', maxBytes);
    const part = (which: number) => this.exports.objectsWindow(which) >>> 0;
    this.offsets = part(0) >>> 2;
    this.order = part(1) >>> 2;
    this.results = part(2) >>> 3;
    this.text = part(3);
    this.routed = part(4);
    this.routedOffsets = part(5) >>> 2;
    this.routedStarts = part(6) >>> 2;
    this.refresh();
  }

  /** Takes new views where the memory has grown, which only insertions do: an old one is empty then. */
  refresh(): void {
    if (this.#u8?.length > 0) return;
    this.#u8 = this.#core.u8;
    this.#u32 = this.#core.u32;
    this.#f64 = this.#core.f64;
    this.#u64 = this.#core.u64;
  }

  get u8(): Uint8Array {
    return this.#u8;
  }

  get u32(): Uint32Array {
    return this.#u32;
  }

  get f64(): Float64Array {
    return this.#f64;
  }

  get u64(): BigUint64Array {
    return this.#u64;
  }

  get byteLength(): number {
    return this.#u8.length;
  }

  /** The cell of an id of this shard, or 0 when it is no object's any more. */
  cellOf(id: number): number {
    const cell = id & CELL_MASK;
    const live =
      this.#u8[AREAS + (cell >>> 12)] === CELLS &&
      this.#u8[cell * 128] === OBJECT &&
      this.#u32[cell * 32 + 1] >>> 8 === ((id / GENERATION) & GENERATION_MASK);
    return live ? cell : 0;
  }

  /** Id of the object in a cell. */
  idOf(cell: number): number {
    return this.number * SHARD + (this.#u32[cell * 32 + 1] >>> 8) * GENERATION + cell;
  }
}
