/**
 * Segments that go. From the moment on which one is unmounted nobody sees it: nothing is placed there, and an object is rid
 * of its copies there before any call works on it. The others are found by a pass over all objects, in slices; one pass
 * serves all segments that were unmounted before it began. In the end it is noted what may still be in use of the memory,
 * should it come back (departed.ts).
 */
import type { SegmentInfo, Uuid } from './api.js';
import type { Books } from './books.js';
import { ClaimList, mayShareBytes } from './departed.js';
import type { Segment } from './segments.js';
import { type SlicedWork, Slices, STEP } from './slices.js';

interface Unmounting {
  readonly segment: Segment;
  readonly claims: ClaimList;
  /** Whether what is claimed in it now is all that is. */
  readonly note: boolean;
}

export class Unmounts implements SlicedWork {
  readonly #books: Books;
  readonly #slices: Slices;
  /** By the segment's number. */
  readonly #unmounting = new Map<number, Unmounting>();
  /** Those that the pass under way is for, and where it is. */
  #pass: readonly Unmounting[] = [];
  #cursor = 0;
  #phase: 'objects' | 'kept' = 'objects';
  #ended: Promise<void> = Promise.resolve();
  #end = () => {};

  constructor(books: Books) {
    this.#books = books;
    this.#slices = new Slices(books, this);
  }

  get any(): boolean {
    return this.#unmounting.size > 0;
  }

  /** Resolves when all that is being unmounted has been. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Unmounts a segment. `note`: false for one whose claims of earlier times were not all entered. */
  begin(segment: Segment, note = true): void {
    if (!this.any) {
      this.#ended = new Promise((resolve) => {
        this.#end = resolve;
      });
    }
    // In one record, not in one for each copy.
    this.#books.journal?.unmounted(segment);
    this.#books.segments.withdraw(segment);
    this.#unmounting.set(segment.number, { segment, claims: new ClaimList(segment.info.length), note });
    this.#slices.start();
  }

  /** The object without its copies in segments that are gone: its id, or 0 where nothing is left of it. */
  settle(id: number): number {
    if (!this.any) return id;
    this.#books.loseCopies(id, this.#loses);
    return this.#books.table.has(id) ? id : 0;
  }

  /** Whether a range of memory may be part of a segment that is being unmounted: what of it is in use is not known yet. */
  mayBe(info: Readonly<SegmentInfo>, client: Uuid): boolean {
    for (const { segment } of this.#unmounting.values()) {
      if (mayShareBytes(segment.info, segment.client, info, client)) return true;
    }
    return false;
  }

  readonly #loses = (handle: number, until: number): boolean => {
    const { segments } = this.#books;
    const { segment, offset, size } = segments.locate(handle);
    const unmounting = this.#unmounting.get(segment);
    if (!unmounting) return false;
    if (until > this.#books.now) unmounting.claims.add({ offset, size, until });
    segments.free(handle);
    return true;
  };

  /** A part of the pass. */
  step(): void {
    const { table, keptBack } = this.#books;
    if (this.#pass.length === 0) {
      this.#pass = [...this.#unmounting.values()];
      this.#cursor = 0;
      this.#phase = 'objects';
    }
    if (this.#phase === 'objects') {
      const { ids, cursor } = table.scan(this.#cursor, STEP);
      for (const id of ids) this.settle(id);
      this.#cursor = cursor;
      if (cursor !== 0 && this.#pass.some(({ segment }) => segment.replicas > 0)) return;
      this.#phase = 'kept';
      if (this.#pass.some(({ segment }) => segment.kept > 0)) keptBack.startSifting();
      return;
    }
    if (keptBack.sift(STEP, this.#loses)) this.#finish();
  }

  #finish(): void {
    const { segments, departed, now } = this.#books;
    for (const { segment, claims, note } of this.#pass) {
      if (note) departed.note(segment.info, segment.client, claims.all, now);
      segments.forget(segment);
      this.#unmounting.delete(segment.number);
    }
    this.#pass = [];
    if (!this.any) this.#end();
  }
}
