/** Descriptors with memory of GPUs on one side, in parts that fit into a window. */
import { DESCRIPTOR_BYTES, type Descriptors } from '../../core/descriptors.js';
import { DescriptorList } from '../descriptor-list.js';
import type { Side } from '../ranges.js';

/** Pieces of a part, at most: its descriptors must fit into a message. */
const MAX_PIECES = 1 << 14;
/** Numbers of a piece. */
const FIELDS = 5;

/** Pieces that follow each other in a window: five numbers each, no object. */
export class Part {
  /** Sum of their lengths. */
  bytes = 0;
  readonly #pieces: number[] = [];

  push(device: number, at: number, other: number, otherAt: number, length: number): void {
    this.#pieces.push(device, at, other, otherAt, length);
    this.bytes += length;
  }

  get isFull(): boolean {
    return this.#pieces.length === FIELDS * MAX_PIECES;
  }

  /** Between GPUs, which are on `side`, and a window from `offset` on; `device` numbers them. */
  copies(side: Side, window: number, offset: number, device: (segment: number) => number): Descriptors {
    const list = new DescriptorList();
    this.#each((segment, at, _, __, length, place) => {
      if (side === 'source') list.push(device(segment), at, window, offset + place, length);
      else list.push(window, offset + place, device(segment), at, length);
    });
    return list.descriptors();
  }

  /** Between the window, in place of the GPUs, and what the other side is. */
  carried(side: Side, window: number, offset: number): Descriptors {
    const list = new DescriptorList();
    this.#each((_, __, other, otherAt, length, place) => {
      if (side === 'source') list.push(window, offset + place, other, otherAt, length);
      else list.push(other, otherAt, window, offset + place, length);
    });
    return list.descriptors();
  }

  #each(
    visit: (device: number, at: number, other: number, otherAt: number, length: number, place: number) => void,
  ): void {
    const pieces = this.#pieces;
    for (let i = 0, place = 0; i < pieces.length; i += FIELDS) {
      const length = pieces[i + 4];
      visit(pieces[i], pieces[i + 1], pieces[i + 2], pieces[i + 3], length, place);
      place += length;
    }
  }
}

/** Walks descriptors; `device` and `at` are of the side that GPUs may be on. */
export class Records {
  device = 0;
  at = 0;
  other = 0;
  otherAt = 0;
  /** Bytes that are left of the record. */
  length = 0;
  readonly #view: DataView;
  readonly #side: number;
  #next = 0;

  constructor({ records }: Descriptors, side: Side) {
    this.#view = new DataView(records.buffer, records.byteOffset, records.byteLength);
    this.#side = side === 'source' ? 0 : 1;
  }

  next(): boolean {
    const record = this.#next;
    if (record === this.#view.byteLength) {
      this.length = 0;
      return false;
    }
    const own = this.#side;
    this.device = this.#view.getUint32(record + 4 * own, true);
    this.other = this.#view.getUint32(record + 4 * (1 - own), true);
    this.at = this.#u64(record + 8 + 8 * own);
    this.otherAt = this.#u64(record + 8 + 8 * (1 - own));
    this.length = this.#u64(record + 24);
    this.#next += DESCRIPTOR_BYTES;
    return true;
  }

  /** The next bytes of GPUs, `most` at most; undefined at the end. What is of none is passed over. */
  part(isDevice: (segment: number) => boolean, most: number): Part | undefined {
    const part = new Part();
    while (part.bytes < most && !part.isFull && this.#stand(isDevice)) {
      const length = Math.min(this.length, most - part.bytes);
      part.push(this.device, this.at, this.other, this.otherAt, length);
      this.at += length;
      this.otherAt += length;
      this.length -= length;
    }
    return part.bytes > 0 ? part : undefined;
  }

  #stand(isDevice: (segment: number) => boolean): boolean {
    while (this.length === 0 || !isDevice(this.device)) if (!this.next()) return false;
    return true;
  }

  #u64(at: number): number {
    return this.#view.getUint32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true);
  }
}

/** Whether a record has memory of a GPU on that side. */
export function touches(descriptors: Descriptors, side: Side, isDevice: (segment: number) => boolean): boolean {
  const records = new Records(descriptors, side);
  for (let last = -1; records.next(); last = records.device) {
    if (records.device !== last && isDevice(records.device)) return true;
  }
  return false;
}

/** The records that have none there, as they are. */
export function others(descriptors: Descriptors, side: Side, isDevice: (segment: number) => boolean): DescriptorList {
  const list = new DescriptorList();
  for (const records = new Records(descriptors, side); records.next(); ) {
    const { device, at, other, otherAt, length } = records;
    if (isDevice(device)) continue;
    if (side === 'source') list.push(device, at, other, otherAt, length);
    else list.push(other, otherAt, device, at, length);
  }
  return list;
}
