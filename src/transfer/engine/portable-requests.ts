/**
 * A batch as requests of Mooncake's data stream: each one contiguous range of the peer's memory. Records that follow each
 * other there travel together, wherever they lie here; what is long is cut.
 */
import { DESCRIPTOR_BYTES, type Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { type Cursor, Ranges, type Side, totalBytes } from '../ranges.js';
import type { Segment, SegmentTable } from '../segments.js';
import type { RemoteRange } from './plane.js';

/** So that several lanes share a long record, and a deadline cuts none too late. */
const MAX_REQUEST_BYTES = 4 * 2 ** 20;

/** Of user space, on every machine that there is: far below where numbers stop being exact. */
const MAX_ADDRESS = 1n << 52n;

const SEGMENT = { source: 0, destination: 4 } as const;
const OFFSET = { source: 8, destination: 16 } as const;
const LENGTH = 24;

const u64 = (view: DataView, at: number) => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);

export interface LaneRequest {
  write: boolean;
  address: number;
  size: number;
  /** Our side of it, from its start. */
  memory(): Cursor;
  /** Times that it was sent. */
  attempts: number;
}

export class Requests {
  readonly bytes: number;
  readonly #write: boolean;
  readonly #view: DataView;
  readonly #remote: Side;
  readonly #ranges: Ranges;
  readonly #addresses = new Map<number, number>();
  readonly #count: number;
  #index = 0;
  /** Bytes of the record at `index` that were taken. */
  #taken = 0;

  /** Throws ERR_SEGMENT naming the record. */
  constructor(
    write: boolean,
    descriptors: Descriptors,
    ours: SegmentTable,
    theirs: (id: number) => RemoteRange | undefined,
  ) {
    const { records, count } = descriptors;
    this.bytes = totalBytes(descriptors);
    this.#write = write;
    this.#view = new DataView(records.buffer, records.byteOffset, records.byteLength);
    this.#remote = write ? 'destination' : 'source';
    this.#count = count;
    this.#ranges = new Ranges(descriptors, write ? 'source' : 'destination', ours);
    for (let index = 0; index < count; index++) this.#check(index, theirs);
  }

  /** Ours. */
  get segments(): Iterable<Segment> {
    return this.#ranges.segments;
  }

  #check(index: number, theirs: (id: number) => RemoteRange | undefined): void {
    const at = index * DESCRIPTOR_BYTES;
    const side = this.#remote;
    const id = this.#view.getUint32(at + SEGMENT[side], true);
    const segment = theirs(id);
    const name = `descriptors[${index}]`;
    if (!segment) throw errors.segment(`${name}.${side}Segment`, id, 'the peer has announced no such segment');
    if (this.#write && segment.readOnly) {
      throw errors.segment(`${name}.${side}Segment`, id, 'the peer registered it for reading');
    }
    if (segment.address > MAX_ADDRESS) {
      throw errors.segment(`${name}.${side}Segment`, id, `its address ${segment.address} is past user space`);
    }
    const [offset, length] = [u64(this.#view, at + OFFSET[side]), u64(this.#view, at + LENGTH)];
    if (offset > segment.length || length > segment.length - offset) {
      throw errors.segment(`${name}.${side}Offset`, offset, `the peer's segment has ${segment.length} bytes`);
    }
    this.#addresses.set(id, Number(segment.address));
  }

  /** The next request; undefined at the end. */
  next(): LaneRequest | undefined {
    while (this.#index < this.#count && this.#length(this.#index) === 0) this.#index++;
    if (this.#index === this.#count) return undefined;
    const [first, skipped] = [this.#index, this.#taken];
    const address = this.#address(first) + skipped;
    let size = 0;
    // Records of no bytes lie anywhere; they end no run.
    while (size < MAX_REQUEST_BYTES && this.#index < this.#count) {
      const length = this.#length(this.#index);
      if (length > 0 && this.#address(this.#index) + this.#taken !== address + size) break;
      const take = Math.min(length - this.#taken, MAX_REQUEST_BYTES - size);
      size += take;
      this.#taken += take;
      if (this.#taken < length) break;
      this.#index++;
      this.#taken = 0;
    }
    const end = this.#taken > 0 ? this.#index + 1 : this.#index;
    const memory = () => {
      const cursor = this.#ranges.cursor(first, end);
      for (let left = skipped; left > 0; ) left -= cursor.next(left)!.length;
      return cursor;
    };
    return { write: this.#write, address, size, memory, attempts: 0 };
  }

  #length(index: number): number {
    return u64(this.#view, index * DESCRIPTOR_BYTES + LENGTH);
  }

  #address(index: number): number {
    const at = index * DESCRIPTOR_BYTES;
    const base = this.#addresses.get(this.#view.getUint32(at + SEGMENT[this.#remote], true))!;
    return base + u64(this.#view, at + OFFSET[this.#remote]);
  }
}
