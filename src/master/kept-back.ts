/**
 * Space that no object owns any more and that must not be handed out yet: a reader may still be reading it under its
 * lease, or a writer whose put was discarded may still write to it.
 */
import type { Claim } from './departed.js';
import { Heap } from './heap.js';
import type { Segments } from './segments.js';

export class KeptBack {
  readonly #segments: Segments;
  readonly #byTime = new Heap();
  #bytes = 0;

  constructor(segments: Segments) {
    this.#segments = segments;
  }

  /** Bytes kept back. */
  get bytes(): number {
    return this.#bytes;
  }

  get byteLength(): number {
    return this.#byTime.byteLength;
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
    const [times, handles] = [this.#byTime.keys.slice(), this.#byTime.values.slice()];
    for (const [at, handle] of handles.entries()) yield { handle, until: times[at] };
  }

  /** Frees what nobody can be reading or writing any more. */
  release(now: number): void {
    for (let until = this.#byTime.key; until !== undefined && until <= now; until = this.#byTime.key) {
      this.#free(this.#byTime.pop());
    }
  }

  /** Forgets what lies in a segment that is about to go; what it was. */
  forget(segment: number): Claim[] {
    const claims: Claim[] = [];
    const staying: [number, number][] = [];
    while (this.#byTime.key !== undefined) {
      const until = this.#byTime.key;
      const handle = this.#byTime.pop();
      const place = this.#segments.locate(handle);
      if (place.segment === segment) {
        this.#bytes -= place.size;
        claims.push({ offset: place.offset, size: place.size, until });
      } else {
        staying.push([until, handle]);
      }
    }
    for (const [until, handle] of staying) this.#byTime.push(until, handle);
    return claims;
  }

  #free(handle: number): void {
    this.#bytes -= this.#segments.locate(handle).size;
    this.#segments.keep(handle, -1);
    this.#segments.free(handle);
  }
}
