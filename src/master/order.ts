/**
 * In which order objects may go. What protects an object gives it a grade; the least recently used of the lowest grade
 * goes first, exactly.
 *
 *   FREE          nothing protects it
 *   LOOKED_UP     a lookup does: it goes when no object is free, or probes alone could fill the store for good
 *   SOFT_PINNED   a soft pin does: it goes when nothing else may
 *   HELD          it is being read, written, copied or taken to a disk, is hard-pinned, or has nothing in memory: it stays
 *
 * Grades fall with time alone and rise by calls that know nothing of this order. So an entry is put in place once, by
 * the grade and the use that the object has then, and looked at again when it comes to the front or when its protection
 * ends: every grant is paid for once, however often eviction runs, and no run walks over what is protected.
 *
 *   by use, a heap a grade:  stamp of the last use ─► id        waiting: end of the protection ─► id
 */
import { Heap } from './heap.js';
import { HOLDING, type ObjectTable, PROCESSING } from './table.js';

export const FREE = 0;
export const LOOKED_UP = 1;
export const SOFT_PINNED = 2;
export const HELD = 3;

/** Entries that are out of date are swept when the heaps have doubled, but not below this. */
const SWEEP_FROM = 4096;

/** The grade of an object that exists. */
export function gradeOf(table: ObjectTable, id: number, now: number): number {
  if (table.state(id) === PROCESSING || (table.flags(id) & HOLDING) !== 0) return HELD;
  if (table.leaseUntil(id) > now) return HELD;
  if (table.pinUntil(id) > now) return SOFT_PINNED;
  return table.lookupUntil(id) > now ? LOOKED_UP : FREE;
}

export class EvictionOrder {
  readonly #table: ObjectTable;
  /** Whether an object that exists is this order's business. */
  readonly #owns: (id: number) => boolean;
  readonly #byUse = [new Heap(), new Heap(), new Heap()];
  readonly #waiting = new Heap();
  #sweepAt = SWEEP_FROM;

  constructor(table: ObjectTable, owns: (id: number) => boolean) {
    this.#table = table;
    this.#owns = owns;
  }

  get byteLength(): number {
    return this.#byUse.reduce((sum, heap) => sum + heap.byteLength, this.#waiting.byteLength);
  }

  add(id: number, now: number): void {
    this.#put(id, now);
    this.#tidy(now);
  }

  /** The least recently used object of a grade, or 0. */
  oldest(grade: number, now: number): number {
    this.#wake(now);
    // Protection that is renewed and ends again leaves an entry each time.
    this.#tidy(now);
    const heap = this.#byUse[grade];
    for (let stamp = heap.key; stamp !== undefined; stamp = heap.key) {
      const id = heap.value;
      if (this.#has(id)) {
        const used = this.#table.stamp(id);
        if (gradeOf(this.#table, id, now) !== grade) {
          heap.pop();
          this.#put(id, now);
          continue;
        }
        if (used === stamp) return id;
        heap.push(used, id);
      }
      heap.pop();
    }
    return 0;
  }

  #has(id: number): boolean {
    return this.#table.has(id) && this.#owns(id);
  }

  #put(id: number, now: number): void {
    const table = this.#table;
    const grade = gradeOf(table, id, now);
    if (grade < HELD) this.#byUse[grade].push(table.stamp(id), id);
    if (grade === FREE) return;
    // A put that is under way and a hard pin do not end by themselves.
    const until =
      grade === HELD ? table.leaseUntil(id) : grade === SOFT_PINNED ? table.pinUntil(id) : table.lookupUntil(id);
    if (until > now) this.#waiting.push(until, id);
  }

  #wake(now: number): void {
    for (let until = this.#waiting.key; until !== undefined && until <= now; until = this.#waiting.key) {
      const id = this.#waiting.pop();
      if (this.#has(id)) this.#put(id, now);
    }
  }

  get #entries(): number {
    return this.#byUse.reduce((sum, heap) => sum + heap.size, this.#waiting.size);
  }

  #tidy(now: number): void {
    if (this.#entries > this.#sweepAt) this.#sweep(now);
  }

  /** Keeps one entry for each object that still is one. */
  #sweep(now: number): void {
    const heaps = [...this.#byUse, this.#waiting];
    const ids = new Float64Array(this.#entries);
    let count = 0;
    for (const heap of heaps) {
      ids.set(heap.values, count);
      count += heap.size;
      heap.clear();
    }
    ids.sort();
    ids.forEach((id, at) => {
      if (id !== ids[at - 1] && this.#has(id)) this.#put(id, now);
    });
    this.#sweepAt = Math.max(SWEEP_FROM, 2 * this.#entries);
  }
}
