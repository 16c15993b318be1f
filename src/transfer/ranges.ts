/**
 * One side of a batch of descriptors, as memory: every range checked against the segments it names before a byte moves,
 * then walked piece by piece without an object per record.
 */
import { DESCRIPTOR_BYTES, type Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { Segment, SegmentTable } from './segments.js';

export type Side = 'source' | 'destination';

export interface RangeOptions {
  /** The peer, not we, will write the ranges: their segments must allow it. */
  peerWrites?: boolean;
}

// Bytes into a record.
const SEGMENT = { source: 0, destination: 4 } as const;
const OFFSET = { source: 8, destination: 16 } as const;
const LENGTH = 24;
const HIGH = 0x1_0000_0000;

/** A u64 as a number; past 2^53 it is no longer exact, but no less than any memory's length. */
const u64 = (view: DataView, at: number) => view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true);

/** Sum of the lengths of a batch. Throws ERR_INVALID_ARGUMENT where it is no exact number. */
export function totalBytes(descriptors: Descriptors): number {
  const total = descriptors.totalBytes;
  if (!Number.isSafeInteger(total)) {
    throw errors.invalidArgument('descriptors', total, 'of at most 2 ** 53 - 1 bytes in all');
  }
  return total;
}

export class Ranges {
  /** Number of records. */
  readonly count: number;
  /** All segments touched. */
  readonly segments = new Set<Segment>();
  readonly #records: DataView;
  readonly #side: Side;
  readonly #table = new Map<number, Segment>();

  /**
   * Checks one side of the batch. The descriptors' bytes are kept, not copied.
   * @throws ERR_SEGMENT naming the record: `descriptors[3].sourceOffset`
   */
  constructor(descriptors: Descriptors, side: Side, table: SegmentTable, options: RangeOptions = {}) {
    const { records, count } = descriptors;
    this.count = count;
    this.#records = new DataView(records.buffer, records.byteOffset, records.byteLength);
    this.#side = side;
    for (let index = 0; index < count; index++) this.#check(index, table, options.peerWrites ?? false);
  }

  #check(index: number, table: SegmentTable, peerWrites: boolean): void {
    const view = this.#records;
    const at = index * DESCRIPTOR_BYTES;
    const side = this.#side;
    const id = view.getUint32(at + SEGMENT[side], true);
    let segment = this.#table.get(id);
    if (!segment) {
      const argument = `descriptors[${index}].${side}Segment`;
      segment = table.get(id, argument);
      if (peerWrites && !segment.writable) throw errors.segment(argument, id, 'peers may only read it');
      this.#table.set(id, segment);
      this.segments.add(segment);
    }
    const offset = u64(view, at + OFFSET[side]);
    if (offset > segment.length) {
      throw errors.segment(`descriptors[${index}].${side}Offset`, offset, `the segment has ${segment.length} bytes`);
    }
    const length = u64(view, at + LENGTH);
    if (length > segment.length - offset) {
      const room = segment.length - offset;
      throw errors.segment(`descriptors[${index}].length`, length, `the segment ends ${room} bytes after the offset`);
    }
  }

  /** Walks the records from `from` to `to` in their order. */
  cursor(from = 0, to = this.count): Cursor {
    const view = this.#records;
    const side = this.#side;
    return new Cursor(from, to, (index, range) => {
      const at = index * DESCRIPTOR_BYTES;
      range.segment = this.#table.get(view.getUint32(at + SEGMENT[side], true))!;
      range.offset = u64(view, at + OFFSET[side]);
      range.length = u64(view, at + LENGTH);
    });
  }
}

interface Range {
  segment: Segment;
  offset: number;
  length: number;
}

/** Gives the memory of the ranges in order, in views no longer than asked for. */
export class Cursor {
  #index: number;
  readonly #end: number;
  readonly #load: (index: number, range: Range) => void;
  readonly #range = { offset: 0, length: 0 } as Range;

  constructor(from: number, to: number, load: (index: number, range: Range) => void) {
    this.#index = from;
    this.#end = to;
    this.#load = load;
  }

  /** The next bytes, at most `max`, all in one range; undefined at the end. Throws ERR_SEGMENT for detached memory. */
  next(max: number): Uint8Array | undefined {
    const range = this.#range;
    while (range.length === 0) {
      if (this.#index === this.#end) return undefined;
      this.#load(this.#index++, range);
    }
    const { segment, offset } = range;
    if (segment.memory.length !== segment.length)
      throw errors.segment('segment', segment.id, 'its memory was detached');
    const take = Math.min(max, range.length);
    range.offset += take;
    range.length -= take;
    return segment.memory.subarray(offset, offset + take);
  }
}
