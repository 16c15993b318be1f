/**
 * The memory of a segment, and the copies in and out of it that sum what they copy. Where the accelerator is there it does
 * all that (native-memory.ts). Otherwise the store's own segments are WebAssembly memories of fixed size, each with an instance
 * of the core beside its bytes, so that CRC-64 runs where the bytes lie; memory that a caller brings is summed through the
 * core's scratch instance.
 *
 * Both sums are of the bytes handed over. In place, sum and copy of a piece are one synchronous step: nothing else in
 * the process can write between them, and nothing outside it can reach a private memory. Memory of a caller may be
 * shared with threads or devices that do, so there the caller's side of the copy is summed.
 */
import { type ChecksumExports, crc64 } from '../core/checksum.js';
import { errors } from '../core/errors.js';
import { Core, coreModule } from '../core/wasm.js';
import { addon, MAX_NATIVE_BYTES, NativeMemory, nativeMemory } from './native-memory.js';

const PAGE = 65536;
const MAX_PAGES = 65535;
/** Pages before the segment's bytes: the core's tables, and scratch for its checksum. */
const HEAD_PAGES = 4;
/** A piece is summed while it is still in the second-level cache from its copy, or the other way round. */
const PIECE = 512 * 1024;

/** Bytes in a segment of the store's own, at most: in WebAssembly 4 GiB less what the core keeps beside them. */
export const MAX_OWN_BYTES = addon ? MAX_NATIVE_BYTES : (MAX_PAGES - HEAD_PAGES) * PAGE;

export interface SegmentMemory {
  /** The segment's bytes; never detached. */
  readonly bytes: Uint8Array;
  /** Set when the segment is taken away: what was read from it before that moment may be stale by now. */
  retired: boolean;
  /** Copies `source` to `offset`; the CRC-64 of it, continued from `crc`. */
  copyIn(offset: number, source: Uint8Array, crc: bigint): bigint;
  /**
   * Fills `target` with the bytes at `offset`; the CRC-64 of what it holds then, continued from `crc`. `fresh`: new memory,
   * which is in no cache.
   */
  copyOut(offset: number, target: Uint8Array, crc: bigint, fresh: boolean): bigint;
  /** Copies `source` to `offset`. */
  write(offset: number, source: Uint8Array): void;
  /** Fills `target` with the bytes at `offset`. */
  read(offset: number, target: Uint8Array, fresh: boolean): void;
  /** CRC-64 of `length` bytes at `offset`, continued from `crc`. */
  sum(offset: number, length: number, crc: bigint): bigint;
  /** Bytes for `Copies`; undefined where they are better copied one by one. */
  range(offset: number, length: number): Uint8Array | undefined;
}

abstract class PlainMemory implements SegmentMemory {
  retired = false;
  abstract readonly bytes: Uint8Array;

  abstract copyIn(offset: number, source: Uint8Array, crc: bigint): bigint;
  abstract copyOut(offset: number, target: Uint8Array, crc: bigint): bigint;
  abstract sum(offset: number, length: number, crc: bigint): bigint;

  range(): undefined {}

  write(offset: number, source: Uint8Array): void {
    this.bytes.set(source, offset);
  }

  read(offset: number, target: Uint8Array): void {
    target.set(this.bytes.subarray(offset, offset + target.length));
  }
}

class OwnMemory extends PlainMemory {
  readonly bytes: Uint8Array;
  readonly #exports: ChecksumExports;
  readonly #area: number;
  readonly #base: number;

  constructor(length: number) {
    super();
    const base = HEAD_PAGES * PAGE;
    const pages = Math.ceil((base + length) / PAGE);
    let memory: WebAssembly.Memory;
    try {
      memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    } catch {
      throw errors.outOfMemory('a segment', length);
    }
    const core = new Core<ChecksumExports>(coreModule(), memory);
    core.exports.crc64Init();
    this.#exports = core.exports;
    this.#area = core.heap;
    this.#base = base;
    this.bytes = new Uint8Array(memory.buffer, base, length);
  }

  copyIn(offset: number, source: Uint8Array, crc: bigint): bigint {
    for (let at = 0; at < source.length; at += PIECE) {
      const piece = source.length <= PIECE ? source : source.subarray(at, at + PIECE);
      this.bytes.set(piece, offset + at);
      crc = this.sum(offset + at, piece.length, crc);
    }
    return crc;
  }

  copyOut(offset: number, target: Uint8Array, crc: bigint): bigint {
    for (let at = 0; at < target.length; at += PIECE) {
      const from = offset + at;
      const piece = this.bytes.subarray(from, from + Math.min(PIECE, target.length - at));
      crc = this.sum(from, piece.length, crc);
      target.set(piece, at);
    }
    return crc;
  }

  sum(offset: number, length: number, crc: bigint): bigint {
    return BigInt.asUintN(64, this.#exports.crc64(this.#base + offset, length, crc, this.#area));
  }
}

class CallersMemory extends PlainMemory {
  constructor(readonly bytes: Uint8Array) {
    super();
  }

  copyIn(offset: number, source: Uint8Array, crc: bigint): bigint {
    for (let at = 0; at < source.length; at += PIECE) {
      const piece = source.subarray(at, at + PIECE);
      this.bytes.set(piece, offset + at);
      crc = crc64(piece, crc);
    }
    return crc;
  }

  copyOut(offset: number, target: Uint8Array, crc: bigint): bigint {
    for (let at = 0; at < target.length; at += PIECE) {
      const piece = target.subarray(at, at + PIECE);
      piece.set(this.bytes.subarray(offset + at, offset + at + piece.length));
      crc = crc64(piece, crc);
    }
    return crc;
  }

  sum(offset: number, length: number, crc: bigint): bigint {
    return crc64(this.bytes.subarray(offset, offset + length), crc);
  }
}

/**
 * New memory of `length` bytes, all zero, 1 to MAX_OWN_BYTES. `passing`: bytes are in it only on their way.
 * @throws ERR_OUT_OF_MEMORY
 */
export function ownMemory(length: number, passing = false): SegmentMemory {
  return addon ? nativeMemory(addon, length, passing) : new OwnMemory(length);
}

/** Memory that a caller brings. */
export function callersMemory(bytes: Uint8Array): SegmentMemory {
  return addon ? new NativeMemory(addon, bytes) : new CallersMemory(bytes);
}

/** CRC-64 of bytes that lie in no segment of ours, continued from `crc`. */
export function sumOf(bytes: Uint8Array, crc: bigint): bigint {
  return addon ? addon.crc64(bytes, crc) : crc64(bytes, crc);
}
