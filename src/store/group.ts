/** Pieces of objects that are moved at once: of registered memory, or one behind the other in a window of staging memory. */
import { WINDOW_BYTES, type Window } from './staging.js';

/** Bytes that are moved at once from and to registered memory: while they are summed, others are on their way. */
const GROUP_BYTES = 2 ** 20;
/** Pieces of small objects in one move. */
const GROUP_PIECES = 4096;
/** Pieces in a window begin at cache lines. */
const LINE = 64;
/** Moves of one call under way. */
export const MOVES = 8;

export class Group<P> {
  readonly pieces: P[] = [];
  readonly window?: Window;
  #bytes = 0;

  constructor(window?: Window) {
    this.window = window;
  }

  /** Where the next piece begins, bytes from the beginning of the window. */
  get next(): number {
    return this.window ? Math.ceil(this.#bytes / LINE) * LINE : this.#bytes;
  }

  /** Bytes that the next piece may have. */
  get room(): number {
    return (this.window ? WINDOW_BYTES : GROUP_BYTES) - this.next;
  }

  get isFull(): boolean {
    return this.room <= 0 || this.pieces.length >= GROUP_PIECES;
  }

  add(piece: P, bytes: number): void {
    this.#bytes = this.next + bytes;
    this.pieces.push(piece);
  }
}
