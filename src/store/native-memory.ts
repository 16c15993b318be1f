/**
 * The memory of segments where the accelerator is there: the bytes of the store's own lie outside of JavaScript's heap, in
 * memory that a TransferEngine lets local peers map, and all copies and sums are the accelerator's, which sums what it stores
 * in the same pass. There is no room beside the bytes, so that a segment is as large as a typed array may be.
 */
import { constants } from 'node:buffer';
import { errors } from '../core/errors.js';
import type { Addon } from '../native/addon.js';
import { loadAddon } from '../native/load.js';
import type { SegmentMemory } from './memory.js';

/**
 * From here on copies into segments and into new memory go past the caches, which hold neither. For a value that is read at
 * once that is no loss: what the copy saves is what its first reader pays.
 */
export const STREAMING_BYTES = 16 * 1024;
/** What the allocator may keep of freed values: more than a garbage collection frees at once. */
const KEPT_BYTES = 256 * 2 ** 20;
/** Bytes of new values, alive, that V8 hears of all at once. */
const UNCOUNTED_BYTES = 256 * 2 ** 20;
/** The same with those that have been freed since, where V8 counts so much else that its count does not fall below zero. */
const UNCOUNTED_EVER_BYTES = 2 ** 30;
/** A scavenge frees no more, a full collection likely does: of values that V8 had counted already. */
const SCAVENGED_BYTES = 96 * 2 ** 20;

/** Undefined where TypeScript and WebAssembly do the work. */
export const addon: Addon | undefined = loadAddon().addon;

/** Bytes in a segment, at most. */
export const MAX_NATIVE_BYTES = Math.min(constants.MAX_LENGTH, 2 ** 46);

/** Memory that is not fresh may be in a cache: for so much going past it costs nothing where it is, and a third where it is not. */
const LARGE_BYTES = 256 * 1024;

const pastCaches = (target: Uint8Array, fresh: boolean) => target.length >= (fresh ? STREAMING_BYTES : LARGE_BYTES);

export class NativeMemory implements SegmentMemory {
  retired = false;
  readonly #addon: Addon;
  readonly #passing: boolean;

  /** `passing`: what is copied in is read at once and copied over soon, so that it stays in the caches. */
  constructor(
    native: Addon,
    readonly bytes: Uint8Array,
    passing = false,
  ) {
    this.#addon = native;
    this.#passing = passing;
  }

  copyIn(offset: number, source: Uint8Array, crc: bigint): bigint {
    const { length } = source;
    return this.#addon.copyCrc64(this.#range(offset, length), source, crc, this.#streams(length));
  }

  copyOut(offset: number, target: Uint8Array, crc: bigint, fresh: boolean): bigint {
    return this.#addon.copyCrc64(target, this.#range(offset, target.length), crc, pastCaches(target, fresh));
  }

  write(offset: number, source: Uint8Array): void {
    this.#addon.copy(this.#range(offset, source.length), source, this.#streams(source.length));
  }

  read(offset: number, target: Uint8Array, fresh: boolean): void {
    this.#addon.copy(target, this.#range(offset, target.length), pastCaches(target, fresh));
  }

  sum(offset: number, length: number, crc: bigint): bigint {
    return this.#addon.crc64(this.#range(offset, length), crc);
  }

  range(offset: number, length: number): Uint8Array | undefined {
    return this.#passing ? undefined : this.#range(offset, length);
  }

  #streams(length: number): boolean {
    return !this.#passing && length >= STREAMING_BYTES;
  }

  #range(offset: number, length: number): Uint8Array {
    return this.bytes.subarray(offset, offset + length);
  }
}

/** New memory of `length` bytes, all zero, 1 to MAX_NATIVE_BYTES. @throws ERR_OUT_OF_MEMORY */
export function nativeMemory(native: Addon, length: number, passing: boolean): SegmentMemory {
  try {
    return new NativeMemory(native, new Uint8Array(native.allocate(length)), passing);
  } catch {
    throw errors.outOfMemory('a segment', length);
  }
}

let keeping = false;

/** New memory for values costs a page fault for every 4 KiB where the allocator gives freed memory back: let it keep some. */
export function keepFreedValues(native: Addon): boolean {
  if (!keeping) keeping = native.keepFreedMemory(KEPT_BYTES);
  return keeping;
}

/** Values that were taken out of V8's count, and how much that fell by itself since: those of them that were freed. */
let uncounted = 0;
let freed = 0;
/** V8's count when it was looked at last. */
let counted = 0;

/**
 * Takes a large new value out of what V8 counts as memory that a full collection might free, until UNCOUNTED_BYTES of them are
 * alive, which it then counts at once. Otherwise a small heap is collected whole for every 32 MiB of values, which takes
 * longer than reading them. Values that nobody keeps are freed by scavenges, which V8 starts by a count of its own. What they
 * free falls out of V8's count a second time; that is made good with the rest, since each rise brings a full collection
 * nearer.
 */
export function countLater(native: Addon, size: number): void {
  uncounted += size;
  const now = native.adjustExternalMemory(-size);
  const fall = counted - now;
  if (fall > 0 && fall <= SCAVENGED_BYTES) freed += fall;
  counted = now;
  const most = now > 0 ? UNCOUNTED_EVER_BYTES : UNCOUNTED_BYTES;
  if (uncounted - freed < UNCOUNTED_BYTES && uncounted < most) return;
  counted = native.adjustExternalMemory(uncounted);
  uncounted = freed = 0;
}
