/**
 * Space that no object owns any more and that must not be handed out yet: a reader may still be reading it under its
 * lease, or a writer whose put was discarded may still write to it.
 */
import { Heap } from './heap.js';
import type { Segments } from './segments.js';

export class KeptBack {
  readonly #segments: Segments;
  #byTime = new Heap();
  /** What has not been looked at since sifting began. */
  #unsifted = new Heap();
  #bytes = 0;

  constructor(segments: Segments) {
    this.#segments = segments;
  }

  /** Bytes kept back. */
  get bytes(): number {
    return this.#bytes;
  }

  get byteLength(): number {
    return this.#byTime.byteLength + this.#unsifted.byteLength;
  }

  /** Frees allocations at once where `until` has come, or keeps them back until then. */
  free(handles: readonly number[], until: number, now: number): void {
    for (const handle of handles) {
      if (until <= now) {
        this.#segments.free(handle);
      } else {
        this.#byTime.push(until, handle);
        this.#segments.keep(handle, 1);
        this.#bytes += this.#segments.locate(handle).size;
      }
    }
  }

  /** What is kept back now, and until when; some of it may be free by the time that it is reached. */
  *all(): Generator<{ handle: number; until: number }> {
    // Both at once: sifting moves pieces from one to the other meanwhile.
    const heaps = [this.#byTime.entries(), this.#unsifted.entries()];
    for (const { keys: times, values: handles } of heaps) {
      for (let at = 0; at < handles.length; at++) yield { handle: handles[at], until: times[at] };
    }
  }

  /** Frees what nobody can be reading or writing any more, at most so many pieces; how many. */
  release(now: number, most: number): number {
    let freed = 0;
    for (const heap of [this.#byTime, this.#unsifted]) {
      for (; freed < most && (heap.key ?? now + 1) <= now; freed++) {
        const handle = heap.pop();
        this.#forget(handle);
        this.#segments.free(handle);
      }
    }
    return freed;
  }

  /** From now on `sift` looks at every piece that there is. */
  startSifting(): void {
    [this.#byTime, this.#unsifted] = [this.#unsifted, this.#byTime];
  }

  /** Looks at so many pieces more, and forgets those that are lost; whether that was all. */
  sift(most: number, loses: (handle: number, until: number) => boolean): boolean {
    for (let left = most; left > 0; left--) {
      const until = this.#unsifted.key;
      if (until === undefined) return true;
      const handle = this.#unsifted.pop();
      this.#forget(handle);
      if (!loses(handle, until)) this.free([handle], until, Number.NEGATIVE_INFINITY);
    }
    return false;
  }

  #forget(handle: number): void {
    this.#bytes -= this.#segments.locate(handle).size;
    this.#segments.keep(handle, -1);
  }
}
