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
 * ends: every grant is paid for once, however often eviction runs, and no run walks over what is protected. What protected
 * millions may end at once, so a call looks at no more than its patience lasts; the calls that follow go on from there.
 *
 *   by use, a heap a grade:  stamp of the last use ─► id        waiting: end of the protection ─► id
 */
import { Heap } from './heap.js';
import type { Patience } from './patience.js';
import { HOLDING, type ObjectTable, PROCESSING } from './table.js';

export const FREE = 0;
export const LOOKED_UP = 1;
export const SOFT_PINNED = 2;
export const HELD = 3;

/** Entries that are out of date are swept when the heaps have doubled, but not below this. */
const SWEEP_FROM = 65_536;
/** Entries that are looked at for each that is added, while there are some to be swept. */
const SWEEP_STEP = 4;

/** The grade of an object that exists. */
export function gradeOf(table: ObjectTable, id: number, now: number): number {
  if (table.state(id) === PROCESSING || (table.flags(id) & HOLDING) !== 0) return HELD;
  if (table.leaseUntil(id) > now) return HELD;
  if (table.pinUntil(id) > now) return SOFT_PINNED;
  return table.lookupUntil(id) > now ? LOOKED_UP : FREE;
}

export class EvictionOrder {
  readonly #table: ObjectTable;
  readonly #patience: Patience;
  /** The flag by which objects that were kept in this sweep are told from others: it changes its meaning with each. */
  readonly #mark: number;
  /** Whether an object that exists is this order's business. */
  readonly #owns: (id: number) => boolean;
  #byUse = [new Heap(), new Heap(), new Heap()];
  #waiting = new Heap();
  /** Entries of before the sweep that is under way, in no order any more. */
  #unswept: Heap[] = [];
  #round = 0;
  #sweepAt = SWEEP_FROM;

  constructor(table: ObjectTable, patience: Patience, mark: number, owns: (id: number) => boolean) {
    this.#table = table;
    this.#patience = patience;
    this.#mark = mark;
    this.#owns = owns;
  }

  get byteLength(): number {
    return this.#heaps.reduce((sum, heap) => sum + heap.byteLength, 0);
  }

  add(id: number, now: number): void {
    this.setAside(id, now);
    this.#sweep(SWEEP_STEP, now);
  }

  /** The same for an object that eviction has just met: `oldest` sweeps. */
  setAside(id: number, now: number): void {
    this.#setMark(id);
    this.#put(id, now);
  }

  /** The least recently used object of a grade; 0 where there is none, or patience is over before it is found. */
  oldest(grade: number, now: number): number {
    // First: protection that is renewed and ends again leaves an entry each time, and they must not pile up.
    this.#sweep(Number.POSITIVE_INFINITY, now);
    this.#wake(now);
    const heap = this.#byUse[grade];
    for (let stamp = heap.key; stamp !== undefined; stamp = heap.key) {
      const id = heap.value;
      const exists = this.#has(id);
      const used = exists ? this.#table.stamp(id) : 0;
      const isOfGrade = exists && gradeOf(this.#table, id, now) === grade;
      if (isOfGrade && used === stamp) return id;
      if (!this.#patience.take()) return 0;
      heap.pop();
      if (isOfGrade) heap.push(used, id);
      else if (exists) this.#put(id, now);
    }
    return 0;
  }

  get #heaps(): readonly Heap[] {
    return [...this.#byUse, this.#waiting, ...this.#unswept];
  }

  get #entries(): number {
    return this.#heaps.reduce((sum, { size }) => sum + size, 0);
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
      if (!this.#patience.take()) return;
      const id = this.#waiting.pop();
      if (this.#has(id)) this.#put(id, now);
    }
  }

  #sweep(most: number, now: number): void {
    this.#tidy();
    for (let left = most; left > 0 && this.#unswept.length > 0 && this.#patience.take(); left--) this.#sweepOne(now);
  }

  /** Begins a sweep, which keeps one entry for each object that still is one. */
  #tidy(): void {
    if (this.#unswept.length > 0) return;
    if (this.#entries <= this.#sweepAt) return;
    this.#unswept = [...this.#byUse, this.#waiting];
    this.#byUse = [new Heap(), new Heap(), new Heap()];
    this.#waiting = new Heap();
    this.#round ^= 1;
  }

  /** Sweeps one entry, or ends the sweep. */
  #sweepOne(now: number): void {
    const heap = this.#unswept.at(-1) as Heap;
    if (heap.size > 0) {
      const id = heap.takeLast();
      if (this.#has(id) && this.#setMark(id)) this.#put(id, now);
      return;
    }
    this.#unswept.pop();
    if (this.#unswept.length === 0) this.#sweepAt = Math.max(SWEEP_FROM, 2 * this.#entries);
  }

  /** Marks an object as kept in this sweep; false where it was already. */
  #setMark(id: number): boolean {
    const flags = this.#table.flags(id);
    const marked = this.#round === 1 ? flags | this.#mark : flags & ~this.#mark;
    if (marked === flags) return false;
    this.#table.setFlags(id, marked);
    return true;
  }
}
