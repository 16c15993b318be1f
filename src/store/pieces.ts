/**
 * Descriptors of a batch, piece by piece: each piece lies in one object and is at most `limit` bytes long. One cursor
 * for all of them, no object for a piece: a batch of blocks has tens of thousands.
 */
import { DESCRIPTOR_BYTES, type Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import { OBJECTS } from './api.js';

export class Pieces {
  /** The object, and where in it the piece begins. */
  object = 0;
  offset = 0;
  /** The segment of the transfer, and where in it the piece begins. */
  segment = 0;
  at = 0;
  /** Bytes of the piece. */
  length = 0;

  readonly #view: DataView;
  readonly #stride: number;
  readonly #limit: number;
  readonly #objectsFirst: boolean;
  readonly #objects: number;
  #record = 0;
  // What is left of the record: a place in the space of the objects, one in the segment.
  #space = 0;
  #place = 0;
  #left = 0;

  /** `side`: the end of each descriptor that names OBJECTS. `objects`: how many the batch has. */
  constructor(
    descriptors: Descriptors,
    side: 'source' | 'destination',
    stride: number,
    objects: number,
    limit = Number.POSITIVE_INFINITY,
  ) {
    const { buffer, byteOffset, byteLength } = descriptors.records;
    this.#view = new DataView(buffer, byteOffset, byteLength);
    this.#stride = stride;
    this.#limit = limit;
    this.#objectsFirst = side === 'source';
    this.#objects = objects;
  }

  /**
   * Steps to the next piece; false at the end. Throws ERR_INVALID_ARGUMENT for a descriptor that names no object of the
   * batch: those before it were good.
   */
  next(): boolean {
    while (this.#left === 0) {
      if (this.#record * DESCRIPTOR_BYTES === this.#view.byteLength) return false;
      this.#load();
    }
    const object = Math.floor(this.#space / this.#stride);
    this.object = object;
    this.offset = this.#space - object * this.#stride;
    this.at = this.#place;
    this.length = Math.min(this.#left, this.#stride - this.offset, this.#limit);
    this.#space += this.length;
    this.#place += this.length;
    this.#left -= this.length;
    return true;
  }

  #u64(at: number): number {
    return this.#view.getUint32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true);
  }

  #load(): void {
    const record = this.#record++;
    const at = record * DESCRIPTOR_BYTES;
    const [ours, theirs] = this.#objectsFirst ? [0, 1] : [1, 0];
    const named = this.#view.getUint32(at + 4 * ours, true);
    if (named !== OBJECTS) {
      const end = this.#objectsFirst ? 'source' : 'destination';
      throw errors.invalidArgument(`descriptors[${record}].${end}Segment`, named, `OBJECTS (${OBJECTS})`);
    }
    this.segment = this.#view.getUint32(at + 4 * theirs, true);
    this.#space = this.#u64(at + 8 + 8 * ours);
    this.#place = this.#u64(at + 8 + 8 * theirs);
    this.#left = this.#u64(at + 24);
    const end = this.#stride * this.#objects;
    if (!(this.#left <= end && this.#space + this.#left <= end)) {
      const range = `${this.#space} to ${this.#space + this.#left}`;
      throw errors.invalidArgument(`descriptors[${record}]`, range, `within the ${end} bytes of the batch's objects`);
    }
  }
}
