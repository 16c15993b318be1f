/**
 * Data of one move as it arrives: written where it belongs, then read back from there piece by piece and compared with the
 * sender's sum. A move that was given up keeps its place until the peer has stopped sending, and its bytes are dropped.
 */
import { crc64 } from '../../core/checksum.js';
import { errors } from '../../core/errors.js';
import type { Cursor, Ranges } from '../ranges.js';
import { type Header, SUMS } from './frames.js';
import type { DataTarget } from './input.js';

export interface IncomingEvents {
  /** Every byte is there, and right. */
  done(): void;
  /** A sum does not match, or the memory is gone; nothing more will be written. */
  failed(error: unknown): void;
}

export class Incoming implements DataTarget {
  /** Bytes to come. */
  left: number;
  readonly #sums: boolean;
  readonly #events: IncomingEvents;
  #writing?: Cursor;
  #checking?: Cursor;
  #next = 0;

  /** Without ranges, all data is dropped. */
  constructor(bytes: number, sums: boolean, events: IncomingEvents, ranges?: Ranges, from?: number, to?: number) {
    this.left = bytes;
    this.#sums = sums;
    this.#events = events;
    this.#writing = ranges?.cursor(from, to);
    if (sums) this.#checking = ranges?.cursor(from, to);
  }

  get dropping(): boolean {
    return this.#writing === undefined;
  }

  /** From here on nothing is written. */
  drop(): void {
    this.#writing = this.#checking = undefined;
  }

  /** A piece begins. Throws ERR_PROTOCOL where it is not the one that is due. */
  begin(header: Header): this {
    if (header.value !== this.#next || header.length > this.left || !(header.flags & SUMS) === this.#sums) {
      throw errors.protocol(`a piece that is not due: number ${this.#next}, at most ${this.left} bytes`, header);
    }
    this.#next++;
    this.left -= header.length;
    return this;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && this.#writing; ) {
      try {
        const view = this.#writing.next(bytes.length - at)!;
        view.set(view.length === bytes.length ? bytes : bytes.subarray(at, at + view.length));
        at += view.length;
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  end(header: Header): void {
    if (this.#checking && this.#sum(header.length) !== header.sum) this.#fail(errors.corrupt('received bytes'));
    if (this.left === 0 && this.#writing) this.#events.done();
  }

  #sum(length: number): bigint | undefined {
    let sum = 0n;
    try {
      for (let left = length; left > 0; ) {
        const view = this.#checking!.next(left)!;
        sum = crc64(view, sum);
        left -= view.length;
      }
    } catch (error) {
      this.#fail(error);
      return undefined;
    }
    return sum;
  }

  #fail(error: unknown): void {
    if (this.dropping) return;
    this.drop();
    this.#events.failed(error);
  }
}
