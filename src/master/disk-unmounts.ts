/**
 * Disks that go. From the moment on which one is unmounted its client may lend another, and an object is rid of its copy there
 * before any call works on it. The others are found by a pass over all objects, in slices; as with segments (unmount.ts), one
 * pass serves all disks that were unmounted before it began.
 */
import type { Books } from './books.js';
import type { Disk } from './disks.js';
import { type SlicedWork, Slices, STEP } from './slices.js';

export class DiskUnmounts implements SlicedWork {
  readonly #books: Books;
  readonly #slices: Slices;
  readonly #leaving = new Set<Disk>();
  /** Those that the pass under way is for, and where it is. */
  #pass: Disk[] = [];
  #cursor = 0;

  constructor(books: Books) {
    this.#books = books;
    this.#slices = new Slices(books, this);
  }

  get any(): boolean {
    return this.#leaving.size > 0;
  }

  begin(disk: Disk): void {
    this.#books.disks.withdraw(disk);
    this.#leaving.add(disk);
    this.#slices.start();
  }

  /** The object without its copy on a disk that is gone: its id, or 0 where nothing is left of it. */
  settle(id: number): number {
    if (!this.any) return id;
    const { table, disks, diskCopies, now } = this.#books;
    const number = table.disk(id);
    if (number !== 0 && disks.at(number).isWithdrawn) diskCopies.lose(id, 'removed', now);
    return table.has(id) ? id : 0;
  }

  /** A part of the pass. */
  step(): void {
    const { table, offload, now } = this.#books;
    if (this.#pass.length === 0) {
      this.#pass = [...this.#leaving];
      this.#cursor = 0;
    }
    for (const disk of this.#pass) if (!offload.forget(disk, STEP, now)) return;
    if (this.#pass.some(({ objects }) => objects > 0)) {
      const { ids, cursor } = table.scan(this.#cursor, STEP);
      for (const id of ids) this.settle(id);
      this.#cursor = cursor;
      if (cursor !== 0 && this.#pass.some(({ objects }) => objects > 0)) return;
    }
    for (const disk of this.#pass) {
      this.#books.disks.forget(disk);
      this.#leaving.delete(disk);
    }
    this.#pass = [];
  }
}
