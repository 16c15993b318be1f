/**
 * Reads records back into empty books. A snapshot is taken while the log goes on, so in between two objects may seem to
 * lie in the same bytes; only at the end does everything fit. Until then nothing is allocated: an object's record has the
 * mounting of its segment where its lease will be, and the offset where its handle will be (settle.ts).
 *
 * A master that was restarted knows the serials of the segments that are mounted then and no others, and may give that of one
 * that is gone to another. So each SEGMENT is a mounting of its own, numbered as they are read: what lay in the one before is
 * in no segment that is mounted.
 */
import { errors } from '../../core/errors.js';
import type { SegmentInfo, Uuid } from '../api.js';
import type { Books } from '../books.js';
import { Slots } from '../slots.js';
import { HAS_CHECKSUM } from '../table.js';
import type { Tenant } from '../tenants.js';
import type { ByteReader } from './bytes.js';
import { KeyChain } from './keys.js';
import { GROUPED, KEPT_FLAGS, PINNED, RECORD, VERSION } from './records.js';

export interface MountedSegment {
  readonly serial: number;
  readonly info: SegmentInfo;
  readonly client: Uuid;
  isMounted: boolean;
}

export interface Reservation {
  readonly mounting: number;
  readonly offset: number;
  readonly size: number;
  /** Wall clock, ms. */
  readonly until: number;
}

/** A copy beyond an object's first. */
export interface Place {
  readonly mounting: number;
  readonly offset: number;
}

export class Replay {
  readonly books: Books;
  /** By mounting, from 1. */
  readonly segments = new Map<number, MountedSegment>();
  /** The last mounting with a serial. */
  readonly #mountings = new Map<number, number>();
  readonly reservations = new Map<string, Reservation>();
  /** Copies beyond the first, by the number in the record; 0 is none. */
  readonly more = new Slots<Place[]>();
  /** Records read. */
  records = 0;
  /** Objects for which the table had no room, and those of tenants that are not served any more. */
  dropped = 0;
  /** The file that is being read: what kind it is, whether it was finished, its tenants. */
  kind = 0;
  isEnded = false;
  #tenants = new Map<number, Tenant | undefined>();
  readonly #keys = new KeyChain();
  readonly #toMonotonic: number;

  constructor(books: Books, wallNow: number) {
    this.books = books;
    this.#toMonotonic = books.options.now() - wallNow;
  }

  /** What is read from now on is of another file. */
  startFile(): void {
    this.kind = 0;
    this.isEnded = false;
    this.#tenants = new Map();
  }

  /** The records of one frame. Throws ERR_PROTOCOL at what is no record of this version. */
  frame(from: ByteReader): void {
    this.#keys.reset();
    while (from.left > 0) {
      this.records++;
      this.#record(from.u8(), from);
    }
  }

  #record(type: number, from: ByteReader): void {
    if (this.isEnded || (this.kind === 0) !== (type === RECORD.start))
      throw errors.protocol('a record out of place', type);
    switch (type) {
      case RECORD.start: {
        const version = from.u8();
        if (version !== VERSION) throw errors.protocol('records of another version', version);
        this.kind = from.u8();
        from.f64();
        return;
      }
      case RECORD.tenant:
        this.#tenants.set(from.varint(), this.books.tenants.find(from.text(), true));
        return;
      case RECORD.segment:
        this.#segment(from);
        return;
      case RECORD.unmounted: {
        const segment = this.segments.get(this.#mounting(from));
        if (segment) segment.isMounted = false;
        return;
      }
      case RECORD.reserved: {
        const mounting = this.#mounting(from);
        const reservation = { mounting, offset: from.varint(), size: from.varint(), until: from.f64() };
        this.reservations.set(`${mounting} ${reservation.offset}`, reservation);
        return;
      }
      case RECORD.released:
        this.reservations.delete(`${this.#mounting(from)} ${from.varint()}`);
        return;
      case RECORD.object:
        this.#object(from);
        return;
      case RECORD.lost: {
        const tenant = this.#tenants.get(from.varint());
        const key = this.#keys.read(from);
        const id = tenant ? this.books.table.find(tenant.number, key) : 0;
        if (id > 0) this.strike(id);
        return;
      }
      case RECORD.end:
        this.isEnded = true;
        return;
      default:
        throw errors.protocol('a record of no type that is known', type);
    }
  }

  #segment(from: ByteReader): void {
    const serial = from.varint();
    const [id, client, name, endpoint, protocol, hostId] = Array.from({ length: 6 }, () => from.text());
    const info = { id, name, endpoint, protocol, hostId, base: from.varint(), length: from.varint() };
    const mounting = this.segments.size + 1;
    this.#mountings.set(serial, mounting);
    // A snapshot may say so of a segment that its log unmounts: in the order in which they are read, that comes later.
    this.segments.set(mounting, { serial, info, client, isMounted: true });
  }

  /** The mounting that a serial names now; 0 for one that is not known, which is gone or comes later in the log. */
  #mounting(from: ByteReader): number {
    return this.#mountings.get(from.varint()) ?? 0;
  }

  #object(from: ByteReader): void {
    const { table, groups } = this.books;
    const tenant = this.#tenants.get(from.varint());
    const flags = from.u8();
    const size = from.varint();
    const owner = from.u32();
    const checksum = (flags & HAS_CHECKSUM) !== 0 ? from.u64() : 0n;
    const pinUntil = (flags & PINNED) !== 0 ? from.f64() + this.#toMonotonic : 0;
    const group = (flags & GROUPED) !== 0 ? from.text() : undefined;
    const copies = from.varint();
    if (copies === 0) throw errors.protocol('an object without copies', copies);
    const mounting = this.#place(from);
    const offset = this.#offset;
    const more: Place[] = [];
    for (let i = 1; i < copies; i++) more.push({ mounting: this.#place(from), offset: this.#offset });
    const key = this.#keys.read(from);
    const id = tenant ? this.#enter(tenant.number, key) : 0;
    if (!tenant || id === 0) {
      this.dropped++;
      return;
    }
    table.setFlags(id, flags & KEPT_FLAGS);
    table.setSize(id, size);
    table.setOwner(id, owner);
    table.setChecksum(id, checksum);
    table.setPinUntil(id, Math.max(0, pinUntil));
    table.setLeaseUntil(id, mounting);
    table.setHandle(id, offset);
    if (more.length > 0) table.setExtra(id, this.more.keep(more));
    if (group !== undefined) table.setGroup(id, groups.join(tenant.number, group, id));
  }

  #offset = 0;

  /** A copy lies there, whatever was going to be written there: its mounting. The offset is in `#offset`. */
  #place(from: ByteReader): number {
    const mounting = this.#mounting(from);
    this.#offset = from.varint();
    if (this.reservations.size > 0) this.reservations.delete(`${mounting} ${this.#offset}`);
    return mounting;
  }

  /** A record for the key, that of its old content where it has one; 0 where the table is full. */
  #enter(tenant: number, key: Uint8Array): number {
    const { table } = this.books;
    const made = table.insert(tenant, key);
    if (made > 0) return made;
    const id = table.find(tenant, key);
    if (id === 0) return 0;
    this.#forgetMore(id);
    // The old content may have gone with its segment, and its group with it.
    this.#leaveGroup(id);
    return id;
  }

  /** Takes an object out of the table. */
  strike(id: number): void {
    this.#forgetMore(id);
    this.#leaveGroup(id);
    this.books.table.remove(id);
  }

  #leaveGroup(id: number): void {
    const { table, groups } = this.books;
    const group = table.group(id);
    if (group === 0) return;
    groups.leave(group, id);
    table.setGroup(id, 0);
  }

  #forgetMore(id: number): void {
    this.more.forget(this.books.table.extra(id));
    this.books.table.setExtra(id, 0);
  }
}
