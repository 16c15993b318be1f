/**
 * The memory that clients lend: which segments are mounted, and where an object's copies go. Offsets count from a
 * segment's base, so segments of different processes may have equal addresses; those of one client must not overlap.
 */
import { type Allocation, AllocatorSet } from '../core/alloc.js';
import type { SegmentInfo, Status, Uuid } from './api.js';
import type { AllocationStrategy, ResolvedOptions } from './options.js';
import { STATUS } from './status.js';

const MAX_ADDRESS = 2 ** 47;
/** All that a segment is: one that differs in any of them is another, whose readers would be sent to the wrong place. */
const FIELDS = ['name', 'base', 'length', 'endpoint', 'protocol', 'hostId'] as const;
/** How many segments `free_ratio_first` and `ssd_free_ratio_first` compare. */
const SAMPLE = 6;

/** Its objects are being moved away, or have been. */
export type Drain = 'none' | 'draining' | 'drained';

export interface Segment {
  /** The allocator's number. */
  readonly number: number;
  /** Of all mountings in this process, those that it took over among them. */
  readonly serial: number;
  readonly info: Readonly<SegmentInfo>;
  readonly client: Uuid;
  readonly capacity: number;
  used: number;
  /** Nothing new is placed in it: it is about to go, or drained (drain.ts). */
  isLeaving: boolean;
  /** Known from before a restart, and its client has not said yet that it still lends it: nothing in it is offered. */
  isAbsent: boolean;
  drain: Drain;
  /** It is gone for everybody; what was in it is being struck out (unmount.ts). */
  isWithdrawn: boolean;
  /** Allocations of objects, and of space that is kept back. */
  replicas: number;
  kept: number;
}

/** What a put says about where its copies should be. */
export interface Preferences {
  readonly copies: number;
  readonly preferredSegments: readonly string[];
  readonly hostId: string;
  readonly preferSameNode: boolean;
}

export class Segments {
  readonly #allocator: AllocatorSet;
  readonly #byNumber: (Segment | undefined)[] = [];
  readonly #byId = new Map<Uuid, Segment>();
  #list: Segment[] = [];
  /** Those of them that take something new. */
  #open: Segment[] = [];
  /** Those from before a restart that take nothing new before `open`, whatever else becomes of them. */
  readonly #closed = new Set<Segment>();
  readonly #strategy: AllocationStrategy;
  readonly #alignment: number;
  readonly #random: () => number;
  readonly #diskFree: (client: Uuid) => number;
  /** Segments that the allocator knows, withdrawn ones too. */
  #mounted = 0;
  /** Bytes over all segments. */
  capacity = 0;
  used = 0;
  /** Segments that are absent. */
  absent = 0;
  #serial = 0;

  /** `diskFree`: which share of its disk a client has left. */
  constructor(options: ResolvedOptions, diskFree: (client: Uuid) => number) {
    this.#allocator = new AllocatorSet({ maxSegments: options.maxSegments });
    this.#strategy = options.allocationStrategy;
    this.#alignment = options.alignment;
    this.#random = options.random;
    this.#diskFree = diskFree;
  }

  get metadataBytes(): number {
    return this.#allocator.metadataBytes;
  }

  get all(): readonly Segment[] {
    return this.#list;
  }

  /** Bytes of the largest segment that takes something new: nothing larger can be stored. */
  get largest(): number {
    return this.#open.reduce((most, { capacity }) => Math.max(most, capacity), 0);
  }

  /** Share of the space for new objects that would be in use with so many bytes more. */
  fullness(bytes: number): number {
    let { used, capacity } = this;
    if (this.#open.length < this.#list.length) {
      used = this.#open.reduce((sum, segment) => sum + segment.used, 0);
      capacity = this.#open.reduce((sum, segment) => sum + segment.capacity, 0);
    }
    return (used + bytes) / capacity;
  }

  byId(id: Uuid): Segment | undefined {
    return this.#byId.get(id);
  }

  /** The host of a client, by what it has mounted; empty where that says nothing. */
  hostOf(client: Uuid): string {
    return this.#list.find((segment) => segment.client === client)?.info.hostId ?? '';
  }

  /**
   * Status ok also where the same client has this very segment mounted. -102: the id is mounted otherwise, another
   * client has a segment of that name and endpoint, or it overlaps one of the client's own. -600: no name, no bytes, or
   * beyond 2^47. -200: as many as may be are mounted. -1010: it is leaving.
   */
  mount(info: SegmentInfo, client: Uuid): Status {
    const { id, name, base, length } = info;
    if (!(Number.isSafeInteger(base) && base >= 0 && Number.isSafeInteger(length) && length >= this.#alignment)) {
      return STATUS.invalidParams;
    }
    if (base + length > MAX_ADDRESS || name === '') return STATUS.invalidParams;
    const known = this.#byId.get(id);
    if (known) {
      const same = known.client === client && FIELDS.every((field) => known.info[field] === info[field]);
      if (!same) return STATUS.segmentExists;
      return known.isLeaving ? STATUS.unavailable : STATUS.ok;
    }
    for (const other of this.#list) {
      if (other.client !== client) {
        if (other.info.name === name && other.info.endpoint === info.endpoint) return STATUS.segmentExists;
      } else if (base < other.info.base + other.info.length && other.info.base < base + length) {
        return STATUS.segmentExists;
      }
    }
    if (this.#mounted === this.#allocator.maxSegments) return STATUS.noSpace;
    this.#open.push(this.#enter(info, client, this.#serial + 1));
    return STATUS.ok;
  }

  /** Enters a segment from before a restart, as absent; undefined where as many as may be are mounted. */
  restore(info: SegmentInfo, client: Uuid, serial: number): Segment | undefined {
    if (this.#mounted === this.#allocator.maxSegments) return undefined;
    const segment = this.#enter(info, client, serial);
    segment.isAbsent = true;
    this.absent++;
    this.#closed.add(segment);
    return segment;
  }

  /** An absent segment is there again. Nothing is placed in it before `open`. */
  revive(segment: Segment): void {
    segment.isAbsent = false;
    this.absent--;
  }

  /** From now on something new is placed in a segment that was revived. */
  open(segment: Segment): void {
    if (this.#closed.delete(segment) && !segment.isLeaving) this.#open.push(segment);
  }

  #enter(info: SegmentInfo, client: Uuid, serial: number): Segment {
    const { length } = info;
    const number = this.#allocator.addSegment({ length, alignment: this.#alignment });
    const capacity = length - (length % this.#alignment);
    const segment: Segment = {
      number,
      serial,
      info: { ...info },
      client,
      capacity,
      used: 0,
      isLeaving: false,
      isAbsent: false,
      drain: 'none',
      isWithdrawn: false,
      replicas: 0,
      kept: 0,
    };
    this.#serial = Math.max(this.#serial, serial);
    this.#mounted++;
    this.#byNumber[number] = segment;
    this.#byId.set(info.id, segment);
    this.#list.push(segment);
    this.capacity += capacity;
    return segment;
  }

  /** Nothing new is placed in a segment any more. */
  leave(segment: Segment): void {
    segment.isLeaving = true;
    this.#open = this.#open.filter((other) => other !== segment);
  }

  /** Its objects are to be moved away, or have been; `none`: it takes objects again. */
  setDrain(segment: Segment, drain: Drain): void {
    if (drain === 'none') {
      segment.isLeaving = false;
      if (!this.#closed.has(segment)) this.#open.push(segment);
    } else {
      this.leave(segment);
    }
    segment.drain = drain;
  }

  /** Takes a segment from everybody's sight; its allocations stay until they are freed. */
  withdraw(segment: Segment): void {
    this.leave(segment);
    this.#closed.delete(segment);
    if (segment.isAbsent) this.absent--;
    segment.isWithdrawn = true;
    this.#byId.delete(segment.info.id);
    this.#list = this.#list.filter((other) => other !== segment);
    this.capacity -= segment.capacity;
    this.used -= segment.used;
  }

  /** Forgets a segment that was withdrawn, and every allocation in it. */
  forget(segment: Segment): void {
    this.#allocator.removeSegment(segment.number);
    this.#byNumber[segment.number] = undefined;
    this.#mounted--;
  }

  named(name: string): Segment[] {
    return this.#list.filter(({ info }) => info.name === name);
  }

  /** Whether an allocation is live. */
  has(handle: number): boolean {
    return this.#allocator.locate(handle) !== undefined;
  }

  /** Where a live allocation lies and the bytes it takes. */
  locate(handle: number): Allocation & { size: number } {
    const place = this.#allocator.locate(handle);
    if (!place) throw new Error(`allocation ${handle} is not live`);
    return place;
  }

  /** What an absent segment would be in the way of: one with the segment's id, its place or its range of memory. */
  inTheWay({ id, name, endpoint, base, length }: SegmentInfo, client: Uuid): Segment[] {
    const clashes = ({ info, client: owner }: Segment) =>
      info.id === id ||
      (owner !== client && info.name === name && info.endpoint === endpoint) ||
      (owner === client && base < info.base + info.length && info.base < base + length);
    return this.#list.filter((segment) => segment.isAbsent && clashes(segment));
  }

  /** The segment that a live allocation lies in. */
  of(handle: number): Segment {
    return this.#byNumber[this.locate(handle).segment] as Segment;
  }

  at(number: number): Segment {
    return this.#byNumber[number] as Segment;
  }

  /**
   * Handles of up to `copies` allocations of `size` bytes in different segments; none where nothing fits. Preferred
   * segments are tried first, in their order, then those of the writer's host, then all as the strategy says.
   */
  place(size: number, { copies, preferredSegments, hostId, preferSameNode }: Preferences): number[] {
    const handles: number[] = [];
    const taken: Segment[] = [];
    const near = hostId !== '' && (preferSameNode || this.#strategy === 'local_first');
    while (handles.length < copies) {
      const segment =
        this.#placePreferred(size, preferredSegments, taken, handles) ??
        (near ? this.#placeInRound(size, this.#ofHost(hostId), taken, handles) : undefined) ??
        this.#placeInEmptiest(size, taken, handles) ??
        this.#placeInRound(size, this.#open, taken, handles);
      if (!segment) break;
      taken.push(segment);
    }
    return handles;
  }

  /** Handle of these very bytes of a segment; undefined where one is in use, or there is no memory to enter them. */
  placeAt(segment: Segment, offset: number, size: number): number | undefined {
    const allocation = this.#allocator.allocateAt(segment.number, offset, size);
    if (!allocation) return undefined;
    this.#count(segment, size);
    return allocation.handle;
  }

  /** Handle of space in a segment of that name; undefined where there is none. */
  placeNamed(size: number, name: string): number | undefined {
    const handles: number[] = [];
    this.#placePreferred(size, [name], [], handles);
    return handles[0];
  }

  free(handle: number): void {
    const { segment, size } = this.locate(handle);
    this.#allocator.free(handle);
    const owner = this.at(segment);
    owner.used -= size;
    owner.replicas--;
    if (!owner.isWithdrawn) this.used -= size;
  }

  /** An allocation changes from an object's into one that is kept back (1), or goes the other way (-1). */
  keep(handle: number, by: 1 | -1): void {
    const segment = this.of(handle);
    segment.kept += by;
    segment.replicas -= by;
  }

  #placeIn(size: number, segment: Segment, taken: readonly Segment[], handles: number[]): boolean {
    if (taken.includes(segment)) return false;
    const allocation = this.#allocator.allocate(segment.number, size);
    if (!allocation) return false;
    this.#count(segment, size);
    handles.push(allocation.handle);
    return true;
  }

  #count(segment: Segment, size: number): void {
    const bytes = Math.ceil(size / this.#alignment) * this.#alignment;
    segment.used += bytes;
    segment.replicas++;
    this.used += bytes;
  }

  #placePreferred(size: number, names: readonly string[], taken: readonly Segment[], handles: number[]) {
    for (const name of names) {
      for (const segment of this.#open) {
        if (segment.info.name === name && this.#placeIn(size, segment, taken, handles)) return segment;
      }
    }
    return undefined;
  }

  /** Where the strategy goes by it: the emptiest of a few, or of all where they are few, or the one with the emptiest disk. */
  #placeInEmptiest(size: number, taken: readonly Segment[], handles: number[]) {
    if (this.#strategy !== 'free_ratio_first' && this.#strategy !== 'ssd_free_ratio_first') return undefined;
    const list = this.#open;
    const one = () => list[Math.floor(this.#random() * list.length)];
    const few = list.length <= SAMPLE ? [...list] : Array.from({ length: SAMPLE }, one);
    const free =
      this.#strategy === 'free_ratio_first'
        ? ({ used, capacity }: Segment) => 1 - used / capacity
        : ({ client }: Segment) => this.#diskFree(client);
    return few.sort((a, b) => free(b) - free(a)).find((segment) => this.#placeIn(size, segment, taken, handles));
  }

  /** Any of a list, from a random place on. */
  #placeInRound(size: number, list: readonly Segment[], taken: readonly Segment[], handles: number[]) {
    const start = Math.floor(this.#random() * list.length);
    for (let i = 0; i < list.length; i++) {
      const segment = list[(start + i) % list.length];
      if (this.#placeIn(size, segment, taken, handles)) return segment;
    }
    return undefined;
  }

  #ofHost(hostId: string): Segment[] {
    return this.#open.filter(({ info }) => info.hostId === hostId);
  }
}
