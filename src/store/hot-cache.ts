/**
 * Objects that were read from other processes lately, in this process's memory: the least recently read goes first. An
 * entry stands for a size and a checksum, not for a key's promise: every get asks the master first, and what it answers decides
 * whether the bytes here are the object. So an object that was removed or replaced is never served from here, and a hit saves
 * the transfer, not the lookup. What comes out is summed like any other copy.
 */
import { callersMemory, type SegmentMemory } from './memory.js';
import type { Place } from './session.js';

/** The id of the copy that is here: none of the master's. */
export const CACHED = -1;
/** An entry's key and bookkeeping cost about so many bytes. */
const ENTRY_BYTES = 256;
/** No object may take more than this share of the cache. */
const LARGEST_SHARE = 1 / 4;

interface Entry {
  readonly checksum: bigint;
  readonly memory: SegmentMemory;
}

export interface HotCacheFigures {
  readonly objects: number;
  readonly bytes: number;
  readonly capacityBytes: number;
  /** Gets that were served from here. */
  readonly hits: number;
}

export class HotCache {
  readonly #capacity: number;
  /** Least recently read first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #hits = 0;

  /** `capacity` in bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get figures(): HotCacheFigures {
    return { objects: this.#entries.size, bytes: this.#bytes, capacityBytes: this.#capacity, hits: this.#hits };
  }

  takes(size: number): boolean {
    return size + ENTRY_BYTES <= this.#capacity * LARGEST_SHARE;
  }

  /** `name` as keyName makes it. */
  find(name: string, size: number, checksum: bigint): Place | undefined {
    const entry = this.#entries.get(name);
    if (!entry) return undefined;
    if (entry.checksum !== checksum || entry.memory.bytes.length !== size) {
      this.drop(name);
      return undefined;
    }
    this.#entries.delete(name);
    this.#entries.set(name, entry);
    this.#hits++;
    return { replica: CACHED, memory: entry.memory, offset: 0 };
  }

  /** Bytes that were compared with the checksum; they are the cache's from now on. */
  add(name: string, checksum: bigint, bytes: Uint8Array): void {
    this.drop(name);
    this.#entries.set(name, { checksum, memory: callersMemory(bytes) });
    this.#bytes += bytes.length + ENTRY_BYTES;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#capacity) break;
      this.drop(oldest);
    }
  }

  drop(name: string): void {
    const entry = this.#entries.get(name);
    if (!entry) return;
    this.#entries.delete(name);
    this.#bytes -= entry.memory.bytes.length + ENTRY_BYTES;
  }
}
