/**
 * Work over all objects that is too long for one turn of the event loop: what a small table needs is done at once, the rest in
 * slices, between which everybody else is served.
 */
import type { Books } from './books.js';

/** Objects, or pieces of space kept back, of one step: half a millisecond. */
export const STEP = 512;
/** Steps before `start` returns, beyond one a shard: small tables are done then. */
const FIRST_STEPS = 3;
/** Milliseconds of work after which the event loop gets a turn. */
const SLICE_MS = 5;

export interface SlicedWork {
  /** Whether any is left. */
  readonly any: boolean;
  /** Does a part of it: half a millisecond or so. */
  step(): void;
}

export class Slices {
  readonly #books: Books;
  readonly #work: SlicedWork;
  #isRunning = false;

  constructor(books: Books, work: SlicedWork) {
    this.#books = books;
    this.#work = work;
  }

  /** There is work. What is under way goes on to it. */
  start(): void {
    if (this.#isRunning) return;
    const steps = FIRST_STEPS + this.#books.options.shards;
    for (let step = 0; this.#work.any && step < steps; step++) this.#work.step();
    this.#goOn();
  }

  #goOn(): void {
    this.#isRunning = this.#work.any;
    if (this.#isRunning) setImmediate(() => this.#slice());
  }

  #slice(): void {
    this.#books.begin();
    const started = performance.now();
    while (this.#work.any && performance.now() - started < SLICE_MS) this.#work.step();
    this.#goOn();
  }
}
