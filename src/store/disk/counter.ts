/**
 * Where peers fetch what they read from a disk: registered memory of the engine into which objects are read for them, batch
 * by batch. A batch is theirs until they release it, or its time is up.
 */
import { OffsetAllocator } from '../../core/alloc.js';
import type { TransferEngine } from '../../transfer/engine/engine.js';
import type { DiskTier } from './tier.js';

/** What readers are told that a batch lasts. It is kept twice as long, for those who began to read in time. */
export const BATCH_TTL_MS = 5000;

/** An object in the memory of a counter. */
export interface Staged {
  readonly bytes: Uint8Array;
  /** By which peers read it. */
  readonly address: bigint;
  /** The same for the engine's own moves. */
  readonly segment: number;
  readonly offset: number;
}

export interface StagedBatch {
  readonly number: number;
  /** One a key. */
  readonly objects: readonly Staged[];
}

interface Batch {
  readonly handles: readonly number[];
  /** Being read into: its memory is nobody else's before that has ended. */
  filling: boolean;
  /** Counted from when it is there to be read. */
  until: number;
}

export class Counter {
  readonly #tier: DiskTier;
  readonly #segment: number;
  readonly #memory: Uint8Array;
  readonly #address: bigint;
  readonly #allocator: OffsetAllocator;
  readonly #batches = new Map<number, Batch>();
  #next = 1;

  private constructor(tier: DiskTier, segment: number, memory: Uint8Array, address: bigint) {
    this.#tier = tier;
    this.#segment = segment;
    this.#memory = memory;
    this.#address = address;
    this.#allocator = new OffsetAllocator({ length: memory.length, alignment: 4096 });
  }

  static async open(tier: DiskTier, engine: TransferEngine, bytes: number): Promise<Counter> {
    const { id, memory, address } = await engine.allocate(bytes, { access: 'read', hugePages: false });
    return new Counter(tier, id, memory, address);
  }

  /** Reads objects of these sizes; undefined where one is not there, not of that size or wrong, or memory is short. */
  async stage(keys: readonly Uint8Array[], sizes: readonly number[]): Promise<StagedBatch | undefined> {
    this.#expire();
    const number = this.#next++;
    const handles: number[] = [];
    const places: number[] = [];
    for (const size of sizes) {
      const place = size > 0 && size <= this.#memory.length ? this.#allocator.allocate(size) : undefined;
      if (!place) break;
      handles.push(place.handle);
      places.push(place.offset);
    }
    const values = places.map((at, i) => this.#memory.subarray(at, at + sizes[i]));
    const batch = { handles, filling: true, until: Number.POSITIVE_INFINITY };
    this.#batches.set(number, batch);
    const complete = values.length === keys.length && sizes.length === keys.length;
    const read = complete ? await this.#read(keys, values) : [];
    batch.filling = false;
    if (read.length < keys.length || read.includes(undefined)) {
      this.release(number);
      return undefined;
    }
    batch.until = performance.now() + 2 * BATCH_TTL_MS;
    const objects = places.map((offset, i) => ({
      bytes: values[i],
      address: this.#address + BigInt(offset),
      segment: this.#segment,
      offset,
    }));
    return { number, objects };
  }

  /** Empty where the keys are none, or the tier is closed. */
  async #read(keys: readonly Uint8Array[], values: readonly Uint8Array[]) {
    try {
      return await this.#tier.get(keys, values);
    } catch {
      return [];
    }
  }

  bytesAt(address: number, size: number): Uint8Array | undefined {
    const at = address - Number(this.#address);
    return at >= 0 && at + size <= this.#memory.length ? this.#memory.subarray(at, at + size) : undefined;
  }

  /** Whether it was still there. One that is being filled was handed out to nobody. */
  release(number: number): boolean {
    const batch = this.#batches.get(number);
    if (!batch || batch.filling) return false;
    this.#batches.delete(number);
    for (const handle of batch.handles) this.#allocator.free(handle);
    return true;
  }

  #expire(): void {
    const now = performance.now();
    for (const [number, { until }] of this.#batches) if (until <= now) this.release(number);
  }
}
