/**
 * The records of log and snapshot, and how the books' state becomes such records. Each says what is from then on, whole,
 * so that reading one twice, or a snapshot that was taken while the log went on, ends in the same state.
 *
 *     START     version, kind of file, time                  of each file the first
 *     TENANT    number in this file, name                     before the first record that names it
 *     SEGMENT   serial, all of its SegmentInfo, client        mounted
 *     UNMOUNTED serial                                        all copies in it are gone
 *     RESERVED  serial, offset, size, until                   may be written to until then
 *     RELEASED  serial, offset                                is not, any more
 *     OBJECT    tenant, flags, size, owner, checksum?, pin?, group?, copies (serial, offset), key
 *     LOST      tenant, key
 *     END                                                     of each file that was finished the last
 *
 * A serial is a mounting of a segment, until that is unmounted: after a restart another may have it. Times are of the wall
 * clock, milliseconds since 1970.
 */
import type { Books } from '../books.js';
import type { Departed } from '../departed.js';
import type { Segment } from '../segments.js';
import { HARD_PINNED, HAS_CHECKSUM } from '../table.js';
import { ByteWriter } from './bytes.js';
import { FRAME_BYTES } from './frames.js';
import { KeyChain } from './keys.js';

export const RECORD = {
  start: 1,
  tenant: 2,
  segment: 3,
  unmounted: 4,
  reserved: 5,
  released: 6,
  object: 7,
  lost: 8,
  end: 9,
} as const;

export const VERSION = 1;
export const KIND = { log: 1, snapshot: 2, recovery: 3 } as const;

/** Flags of an OBJECT beside those of the table that it carries. */
export const KEPT_FLAGS = HAS_CHECKSUM | HARD_PINNED;
export const PINNED = 0x40;
export const GROUPED = 0x80;

/** The serial of segments that are gone, which no mounted one has. */
const DEPARTED = 0;

export class RecordWriter {
  readonly #books: Books;
  readonly #wall: () => number;
  readonly #keys = new KeyChain();
  /** Tenants that the file has named. */
  #named = new Set<number>();
  #out = RecordWriter.#empty();

  constructor(books: Books, wall: () => number) {
    this.#books = books;
    this.#wall = wall;
  }

  /** Bytes of records in the frame so far. */
  get length(): number {
    return this.#out.length - FRAME_BYTES;
  }

  /** Takes the frame, unsealed, and begins another. `spare` is one that was taken before and is not needed any more. */
  take(spare = RecordWriter.#empty()): ByteWriter {
    const frame = this.#out;
    spare.length = FRAME_BYTES;
    this.#out = spare;
    this.#keys.reset();
    return frame;
  }

  /** What is written from now on goes to another file. */
  start(kind: number): void {
    this.#named = new Set();
    this.#out.u8(RECORD.start);
    this.#out.u8(VERSION);
    this.#out.u8(kind);
    this.#out.f64(this.#wall());
  }

  end(): void {
    this.#out.u8(RECORD.end);
  }

  segment({ serial, info, client }: Pick<Segment, 'serial' | 'info' | 'client'>): void {
    const out = this.#out;
    out.u8(RECORD.segment);
    out.varint(serial);
    for (const text of [info.id, client, info.name, info.endpoint, info.protocol, info.hostId]) out.text(text);
    out.varint(info.base);
    out.varint(info.length);
  }

  unmounted({ serial }: Pick<Segment, 'serial'>): void {
    this.#out.u8(RECORD.unmounted);
    this.#out.varint(serial);
  }

  /** A segment that is gone, and what may still be written to of its memory. */
  departed({ info, client, claims }: Departed): void {
    const out = this.#out;
    this.segment({ serial: DEPARTED, info, client });
    for (const { offset, size, until } of claims) {
      out.u8(RECORD.reserved);
      out.varint(DEPARTED);
      out.varint(offset);
      out.varint(size);
      out.f64(this.#wallOf(until));
    }
    this.unmounted({ serial: DEPARTED });
  }

  reserved(handle: number, until: number): void {
    const out = this.#out;
    out.u8(RECORD.reserved);
    this.#place(handle, true);
    out.f64(this.#wallOf(until));
  }

  released(handle: number): void {
    this.#out.u8(RECORD.released);
    this.#place(handle, false);
  }

  object(id: number): void {
    const { table, groups } = this.#books;
    const tenant = this.#tenant(id);
    const out = this.#out;
    const pinUntil = table.pinUntil(id);
    const group = table.group(id);
    const flags = (table.flags(id) & KEPT_FLAGS) | (pinUntil > 0 ? PINNED : 0) | (group > 0 ? GROUPED : 0);
    out.u8(RECORD.object);
    out.varint(tenant);
    out.u8(flags);
    out.varint(table.size(id));
    out.u32(table.owner(id));
    if ((flags & HAS_CHECKSUM) !== 0) out.u64(table.checksum(id));
    if (pinUntil > 0) out.f64(this.#wallOf(pinUntil));
    if (group > 0) out.text(groups.name(group));
    if (table.extra(id) === 0) {
      out.varint(1);
      this.#place(table.handle(id), false);
    } else {
      const handles = this.#books.handles(id);
      out.varint(handles.length);
      for (const handle of handles) this.#place(handle, false);
    }
    this.#keys.write(table.keyView(id), out);
  }

  lost(id: number): void {
    const tenant = this.#tenant(id);
    this.#out.u8(RECORD.lost);
    this.#out.varint(tenant);
    this.#keys.write(this.#books.table.keyView(id), this.#out);
  }

  #tenant(id: number): number {
    const { table, tenants } = this.#books;
    const number = table.tenant(id);
    if (!this.#named.has(number)) {
      this.#named.add(number);
      this.#out.u8(RECORD.tenant);
      this.#out.varint(number);
      this.#out.text(tenants.at(number).name);
    }
    return number;
  }

  #place(handle: number, withSize: boolean): void {
    const { segments } = this.#books;
    const { segment, offset, size } = segments.locate(handle);
    this.#out.varint(segments.at(segment).serial);
    this.#out.varint(offset);
    if (withSize) this.#out.varint(size);
  }

  #wallOf(time: number): number {
    return time + this.#wall() - this.#books.options.now();
  }

  static #empty(): ByteWriter {
    const out = new ByteWriter();
    out.length = FRAME_BYTES;
    return out;
  }
}
