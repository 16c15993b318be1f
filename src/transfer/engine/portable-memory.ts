/**
 * Memory of JavaScript has no address, so each segment gets a virtual one: unique within the engine, never used again, below
 * 2 ** 47 as every user-space address, from a random start, so that what a peer kept of an earlier run names nothing.
 */
import { randomInt } from 'node:crypto';
import { errors } from '../../core/errors.js';
import { type Segment, SegmentTable } from '../segments.js';

/** Segments begin at multiples of it, and this much behind each belongs to none. */
const GRAIN = 2 ** 21;
const LOWEST = 2 ** 44;
const RANDOM_GRAINS = 2 ** 24;
const END = 2 ** 47;

interface Placed {
  address: number;
  segment: Segment;
}

export class PortableMemory {
  readonly segments = new SegmentTable();
  /** By address, ascending: later segments have higher ones. */
  #placed: Placed[] = [];
  #next = LOWEST + GRAIN * randomInt(RANDOM_GRAINS);

  add(memory: Uint8Array, writable: boolean): { id: number; address: number } {
    const address = this.#next;
    const next = address + GRAIN * (Math.ceil(memory.length / GRAIN) + 1);
    if (next > END) throw errors.outOfMemory('virtual addresses', memory.length);
    const id = this.segments.register(memory, { access: writable ? 'read-write' : 'read' });
    this.#next = next;
    this.#placed.push({ address, segment: this.segments.get(id, 'segment') });
    return { id, address };
  }

  remove(id: number): Promise<void> {
    const removed = this.segments.unregister(id);
    this.#placed = this.#placed.filter(({ segment }) => segment.id !== id);
    return removed;
  }

  /** Where the whole of [address, address + size) lies; undefined where that is nowhere. */
  find(address: number, size: number): { segment: Segment; offset: number } | undefined {
    let [low, high] = [0, this.#placed.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#placed[middle].address <= address) low = middle + 1;
      else high = middle;
    }
    const placed = this.#placed[low - 1];
    if (!placed) return undefined;
    const { segment } = placed;
    const offset = address - placed.address;
    const fits = size <= segment.length - offset && segment.memory.length === segment.length;
    return fits ? { segment, offset } : undefined;
  }
}
