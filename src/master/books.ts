/**
 * The books of the service: every object, put and byte of space is entered and struck out here, so that what the tables
 * say stays in step. The verbs (puts, reads, removal, eviction, scans) are files of their own and work on these.
 *
 *   key ─► record (table)   state, size, checksum, protections, handle of the first copy, number of further ones
 *            ├ Put          while a put or an upsert is under way: who, since when, and the space it writes to
 *            ├ Copying      while it is copied or moved
 *            ├ more copies  handles
 *            ├ Disk         the one that has a copy; then eviction takes the copies in memory alone
 *            └ group        members that are protected and evicted together
 */
import { errors } from '../core/errors.js';
import type { Replica, SegmentInfo, Status, Uuid } from './api.js';
import { CopiesUnderWay } from './copying.js';
import { newCounters } from './counters.js';
import { DepartedSegments } from './departed.js';
import { DiskCopies } from './disk-copies.js';
import { DiskUnmounts } from './disk-unmounts.js';
import { Disks } from './disks.js';
import { Groups } from './groups.js';
import type { Journal } from './journal.js';
import { KeptBack } from './kept-back.js';
import { type LossReason, RecentLosses } from './losses.js';
import { Offload } from './offload.js';
import type { ResolvedOptions } from './options.js';
import { EvictionOrder } from './order.js';
import { NOBODY, ownerOf } from './owner.js';
import { Patience } from './patience.js';
import { Promotion } from './promotion.js';
import { type Segment, Segments } from './segments.js';
import { Slots } from './slots.js';
import { STATUS } from './status.js';
import {
  COMPLETE,
  HARD_PINNED,
  HAS_CHECKSUM,
  ObjectTable,
  PROCESSING,
  READ,
  SWEPT,
  SWEPT_IN_TENANT,
  UNREAD,
} from './table.js';
import { type Tenant, Tenants } from './tenants.js';
import { Unmounts } from './unmount.js';

/** A put or an upsert under way. Its record is PROCESSING, or has the content that is going to be replaced. */
export interface Put {
  readonly client: Uuid;
  readonly startedAt: number;
  /** Allocations that it writes to. */
  handles: number[];
  readonly size: number;
  /** End of a soft pin that the object had and keeps; 0: none. */
  readonly pinUntil: number;
  /** A soft pin that starts when the object becomes readable, in ms; 0: none. */
  readonly pinForMs: number;
  readonly hardPin: boolean;
}

/** Pieces of space kept back, and puts, that one call clears away, some 0.2 ms: what is left over is for the next. */
const MOST_CLEARED = 256;
/** The same for a call that needs the space. */
const MOST_RELEASED = 2048;

/** Whether a copy is lost; it may be read or written until then. */
type Loses = (handle: number, until: number) => boolean;

export class Books {
  readonly options: ResolvedOptions;
  readonly table: ObjectTable;
  readonly segments: Segments;
  readonly keptBack: KeptBack;
  readonly departed = new DepartedSegments();
  readonly copying = new CopiesUnderWay(this);
  readonly unmounts = new Unmounts(this);
  readonly tenants: Tenants;
  readonly groups = new Groups();
  readonly disks = new Disks();
  readonly diskCopies = new DiskCopies(this);
  readonly diskUnmounts = new DiskUnmounts(this);
  readonly offload = new Offload(this);
  readonly promotion: Promotion;
  readonly losses: RecentLosses;
  /** Of the call that is under way. */
  readonly patience = new Patience();
  /** By record, in order of their start. */
  readonly puts = new Map<number, Put>();
  /** Objects that eviction has met and passed over; the others are in the table's lists. */
  readonly order: EvictionOrder;
  readonly counters = newCounters();
  /** Told of what must outlive the process; undefined: nothing has to. */
  journal: Journal | undefined;
  /** Readable objects. */
  objects = 0;
  /** Handles of the further copies of objects that have them, by the number in the record. */
  readonly #more = new Slots<number[]>();
  #now = Number.NEGATIVE_INFINITY;
  /** Nothing new is placed in segments from before a restart until then; those of them that are there again. */
  #fencedUntil = Number.NEGATIVE_INFINITY;
  #revived: Segment[] = [];

  constructor(options: ResolvedOptions) {
    this.options = options;
    this.table = new ObjectTable({ shards: options.shards, maxBytes: options.maxTableBytes });
    this.segments = new Segments(options, (client) => this.disks.freeShare(client));
    this.keptBack = new KeptBack(this.segments);
    this.losses = new RecentLosses(options.recentLosses);
    const { table, patience } = this;
    this.order = new EvictionOrder(table, patience, SWEPT, (id) => table.list(id) < 0);
    const all = () => true;
    this.tenants = new Tenants(options.tenants, () => new EvictionOrder(table, patience, SWEPT_IN_TENANT, all));
    this.promotion = new Promotion(this);
  }

  /** The time of a call, at which all that has run out by then is cleared away. */
  begin(): number {
    const time = this.options.now();
    if (!Number.isFinite(time)) throw errors.invalidArgument('now()', time, 'a time in milliseconds');
    // A clock that is set back must not bring protections back.
    const now = (this.#now = Math.max(this.#now, time));
    this.patience.renew();
    this.keptBack.release(now, MOST_CLEARED);
    if (this.#revived.length > 0 && this.#fencedUntil <= now) {
      for (const segment of this.#revived.splice(0)) this.segments.open(segment);
    }
    let left = MOST_CLEARED;
    for (const [id, put] of this.puts) {
      if (now - put.startedAt < this.options.putReleaseMs || left-- === 0) break;
      this.discardPut(id, put, now);
    }
    this.copying.expire(now);
    this.offload.expire(now);
    this.promotion.expire(now);
    return now;
  }

  /** The time of the last call. */
  get now(): number {
    return this.#now;
  }

  /** Frees space that was kept back until now, for a call that needs some; how many pieces. */
  release(now: number): number {
    return this.keptBack.release(now, MOST_RELEASED);
  }

  /** Id of the object with this key, settled; 0 when there is none. */
  find(tenant: number, key: Uint8Array): number {
    const id = this.table.find(tenant, key);
    return id === 0 ? 0 : this.settle(id);
  }

  /** The object without its copies in segments and on disks that are gone: its id, or 0 where nothing is left of it. */
  settle(id: number): number {
    const left = this.unmounts.settle(id);
    return left === 0 ? 0 : this.diskUnmounts.settle(left);
  }

  /** Whether all objects are settled. */
  get isSettled(): boolean {
    return !this.unmounts.any && !this.diskUnmounts.any;
  }

  /** Handles of an object's readable copies in memory. */
  handles(id: number): number[] {
    if (this.diskCopies.isAlone(id)) return [];
    const more = this.#more.at(this.table.extra(id));
    return more ? [this.table.handle(id), ...more] : [this.table.handle(id)];
  }

  replicas(handles: readonly number[], size: number, state: Replica['state']): Replica[] {
    return handles.map((handle) => {
      const { segment, offset } = this.segments.locate(handle);
      const { id, name, endpoint, protocol }: SegmentInfo = this.segments.at(segment).info;
      return { id: handle, kind: 'memory', state, segment: id, segmentName: name, endpoint, protocol, offset, size };
    });
  }

  isReadable(id: number): boolean {
    return this.table.state(id) === COMPLETE;
  }

  /** Handles of the copies that may be read now. */
  offered(id: number): number[] {
    const handles = this.handles(id);
    return this.segments.absent === 0 ? handles : handles.filter((handle) => !this.segments.of(handle).isAbsent);
  }

  /** Whether a readable object is on no disk, and all its copies lie in segments that are absent. */
  isAbsent(id: number): boolean {
    if (this.segments.absent === 0 || this.table.disk(id) !== 0) return false;
    return this.handles(id).every((handle) => this.segments.of(handle).isAbsent);
  }

  isLeased(id: number, now: number): boolean {
    return this.table.leaseUntil(id) > now || this.table.lookupUntil(id) > now;
  }

  /** The record of a new object whose put starts, or 0 where the table is full. */
  startObject(tenant: Tenant, key: Uint8Array, group: string | undefined, put: Put): number {
    const id = this.table.insert(tenant.number, key);
    if (id <= 0) return 0;
    this.table.setState(id, PROCESSING);
    if (group !== undefined) this.table.setGroup(id, this.groups.join(tenant.number, group, id));
    this.startPut(id, tenant, put);
    return id;
  }

  startPut(id: number, tenant: Tenant, put: Put): void {
    this.puts.set(id, put);
    tenant.usedBytes += put.size * put.handles.length;
    this.journal?.reserved(put.handles, put.startedAt + this.options.putReleaseMs);
  }

  /** An upsert that writes over the content itself, which nobody may read from now on. */
  startInPlace(id: number, tenant: Tenant, put: Put): void {
    this.journal?.lost(id);
    this.#closeContent(id, 'removed');
    this.startPut(id, tenant, put);
  }

  /** What was written becomes readable; what it replaces is gone. */
  completePut(id: number, put: Put, checksum: bigint | undefined, now: number): void {
    const { table } = this;
    const tenant = this.tenantOf(id);
    if (this.isReadable(id)) this.#freeContent(id, 'removed', now);
    this.puts.delete(id);
    const pinned = put.hardPin || (table.flags(id) & HARD_PINNED) !== 0;
    table.setState(id, COMPLETE);
    table.setFlags(id, (checksum === undefined ? 0 : HAS_CHECKSUM) | (pinned ? HARD_PINNED : 0));
    table.setChecksum(id, checksum ?? 0n);
    table.setSize(id, put.size);
    table.setLeaseUntil(id, 0);
    table.setPinUntil(id, put.pinForMs > 0 ? now + put.pinForMs : put.pinUntil);
    table.setOwner(id, ownerOf(put.client));
    table.setHandle(id, put.handles[0]);
    table.setExtra(id, put.handles.length > 1 ? this.#keepMore(put.handles.slice(1)) : 0);
    this.objects++;
    tenant.objects++;
    table.link(id, UNREAD);
    if (!pinned) tenant.order?.add(id, now);
    this.journal?.kept(id);
    const { offload: enabled, offloadOnEvict } = this.options;
    const disk = enabled && !offloadOnEvict ? this.offload.diskFor(id) : undefined;
    if (disk) this.offload.request(id, disk, now);
  }

  /**
   * An object from before a restart, whose record says all but when it may be read: whoever reads it since then has at
   * most one lease. In the list of what is read, eviction stops at such objects instead of walking over them.
   */
  restore(id: number, handles: readonly number[], now: number): void {
    const { table, options } = this;
    if (handles.length === 0) {
      this.#strike(id);
      return;
    }
    const tenant = this.tenantOf(id);
    table.setState(id, COMPLETE);
    table.setLeaseUntil(id, now + options.leaseTtlMs);
    table.setHandle(id, handles[0]);
    table.setExtra(id, this.#keepMore(handles.slice(1)));
    this.objects++;
    tenant.objects++;
    tenant.usedBytes += table.size(id) * handles.length;
    table.link(id, READ);
    if ((table.flags(id) & HARD_PINNED) === 0) tenant.order?.add(id, now);
  }

  /** Nothing new is placed in restored segments before then: what was freed last may still be read. */
  fence(until: number): void {
    this.#fencedUntil = until;
  }

  /** Whether the last put of a readable object was this client's, and ended. */
  isOwner(id: number, client: Uuid): boolean {
    return this.table.owner(id) === ownerOf(client);
  }

  /** Takes a put back; its space is free when nobody can be writing to it, at `safeAt`. */
  revokePut(id: number, put: Put, safeAt: number, now: number): void {
    this.puts.delete(id);
    const tenant = this.tenantOf(id);
    tenant.usedBytes -= put.size * put.handles.length;
    if (safeAt <= now) this.journal?.released(put.handles);
    this.keptBack.free(put.handles, safeAt, now);
    this.#lose(id, put);
  }

  /** A put that did not end in time: its writer may still be writing. */
  discardPut(id: number, put: Put, now: number): void {
    this.counters.discardedPuts++;
    this.revokePut(id, put, put.startedAt + this.options.putReleaseMs, now);
  }

  /** Takes readable content away. An upsert that is under way becomes a put. */
  drop(id: number, reason: LossReason, now: number): void {
    this.copying.discard(id, now);
    this.#freeContent(id, reason, now);
    if (!this.puts.has(id)) this.#strike(id);
  }

  /** Takes away the copies that lie in segments of that name; whether there were any. */
  dropCopies(id: number, segmentName: string, now: number): boolean {
    return this.#dropThose(id, (handle) => this.segments.of(handle).info.name === segmentName, now);
  }

  /** Takes one copy of a readable object away. */
  dropCopy(id: number, copy: number, now: number): void {
    this.#dropThose(id, (handle) => handle === copy, now);
  }

  #dropThose(id: number, goes: (handle: number) => boolean, now: number): boolean {
    const handles = this.handles(id);
    if (!handles.some(goes)) return false;
    const all = handles.every(goes);
    if (all) this.journal?.lost(id);
    this.#loseContentCopies(id, (handle, until) => {
      if (!goes(handle)) return false;
      this.keptBack.free([handle], until, now);
      return true;
    });
    if (!all) this.journal?.kept(id);
    return true;
  }

  /** A readable object gets more copies, which its tenant is charged for already. */
  addCopies(id: number, copies: readonly number[]): void {
    if (copies.length === 0) return;
    this.#setHandles(id, [...this.handles(id), ...copies]);
    this.journal?.kept(id);
  }

  /** An object that was held for a while, and that eviction may have passed over, may go again. */
  released(id: number, now: number): void {
    if (!this.isReadable(id) || this.diskCopies.isAlone(id)) return;
    if (this.table.list(id) < 0) this.order.add(id, now);
    this.tenantOf(id).order?.add(id, now);
  }

  /** Mounts a segment; what somebody may still be using of memory that comes back is kept back. */
  mount(info: SegmentInfo, client: Uuid, now: number): Status {
    const { segments, keptBack } = this;
    if (segments.absent > 0 && this.#returns(info, client)) return STATUS.ok;
    const again = segments.byId(info.id) !== undefined;
    if (this.unmounts.mayBe(info, client)) return STATUS.unavailable;
    const status = segments.mount(info, client);
    const segment = segments.byId(info.id);
    if (status !== STATUS.ok || again || !segment) return status;
    this.journal?.mounted(segment);
    for (const { offset, size, until } of this.departed.claims(info, client, this.options.alignment, now)) {
      const handle = segments.placeAt(segment, offset, size);
      if (handle !== undefined) {
        this.journal?.reserved([handle], until);
        keptBack.free([handle], until, now);
        continue;
      }
      // The allocator's memory is full: without this piece the segment is of no use.
      this.unmounts.begin(segment, false);
      return STATUS.noSpace;
    }
    return status;
  }

  /** Whether it is an absent segment that is mounted again. An absent one that differs is not going to come back. */
  #returns(info: SegmentInfo, client: Uuid): boolean {
    const { segments } = this;
    const known = segments.byId(info.id);
    if (known?.isAbsent && segments.mount(info, client) === STATUS.ok) {
      segments.revive(known);
      this.#revived.push(known);
      return true;
    }
    for (const segment of segments.inTheWay(info, client)) this.unmounts.begin(segment);
    return false;
  }

  /** Strikes out the copies of an object that are lost, those that are being written too. */
  loseCopies(id: number, loses: Loses): void {
    const put = this.puts.get(id);
    if (put) this.#losePutCopies(id, put, loses, put.startedAt + this.options.putReleaseMs);
    if (!this.table.has(id) || !this.isReadable(id)) return;
    this.copying.lose(id, loses);
    this.promotion.lose(id, loses);
    this.#loseContentCopies(id, loses);
  }

  #losePutCopies(id: number, put: Put, loses: Loses, until: number): void {
    const staying = put.handles.filter((handle) => !loses(handle, until));
    const lost = put.handles.length - staying.length;
    if (lost === 0) return;
    this.tenantOf(id).usedBytes -= lost * put.size;
    put.handles = staying;
    if (staying.length > 0) return;
    this.puts.delete(id);
    this.#lose(id, put);
  }

  /** After a put that came to nothing. Its end, should it still come, must not be taken for that of the client's last. */
  #lose(id: number, put: Put): void {
    if (!this.isReadable(id)) this.#strike(id);
    else if (this.isOwner(id, put.client)) this.table.setOwner(id, NOBODY);
  }

  #loseContentCopies(id: number, loses: Loses): void {
    const until = this.table.leaseUntil(id);
    // Most objects have one copy: no array for them.
    if (this.table.extra(id) === 0) {
      if (!this.diskCopies.isAlone(id) && loses(this.table.handle(id), until)) this.#loseMemory(id);
      return;
    }
    const handles = this.handles(id);
    const written = this.offload.sources(id);
    const staying = handles.filter((handle) => !loses(handle, until));
    const lost = handles.length - staying.length;
    if (lost === 0) return;
    if (staying.length === 0) return void this.#loseMemory(id);
    this.tenantOf(id).usedBytes -= lost * this.table.size(id);
    this.#setHandles(id, staying);
    this.copying.noteLoss(id, staying);
    if (written.some((handle) => !staying.includes(handle))) this.offload.giveUp(id, this.#now);
  }

  #setHandles(id: number, handles: readonly number[]): void {
    this.#forgetMore(id);
    this.table.setHandle(id, handles[0]);
    this.table.setExtra(id, this.#keepMore(handles.slice(1)));
  }

  /** The last copies in memory are gone, and with them the content, if it is on no disk. */
  #loseMemory(id: number): void {
    this.copying.discard(id, this.#now);
    if (this.table.disk(id) !== 0) {
      this.diskCopies.endInMemory(id);
      return;
    }
    this.#closeContent(id, 'removed');
    if (!this.puts.has(id)) this.#strike(id);
  }

  /** A readable object has no copies in memory any more, and its tenant is not charged for them; they are the caller's. */
  clearHandles(id: number): void {
    this.tenantOf(id).usedBytes -= this.table.size(id) * this.handles(id).length;
    this.#forgetMore(id);
    this.table.setHandle(id, 0);
    this.table.setExtra(id, 0);
  }

  /** Readable content ends; its space stays as it is until nobody reads it under a lease. */
  #freeContent(id: number, reason: LossReason, now: number): void {
    const handles = this.handles(id);
    const until = this.table.leaseUntil(id);
    this.promotion.cancel(id, now);
    this.journal?.lost(id);
    this.#closeContent(id, reason);
    this.keptBack.free(handles, until, now);
  }

  #closeContent(id: number, reason: LossReason): void {
    this.losses.note(this.table.tenant(id), this.table.keyView(id), reason);
    const tenant = this.tenantOf(id);
    tenant.usedBytes -= this.table.size(id) * this.handles(id).length;
    tenant.objects--;
    this.objects--;
    this.offload.cancel(id);
    this.diskCopies.close(id);
    this.#forgetMore(id);
    this.table.setExtra(id, 0);
    this.table.setState(id, PROCESSING);
    this.table.unlink(id);
  }

  #strike(id: number): void {
    const group = this.table.group(id);
    if (group !== 0) this.groups.leave(group, id);
    this.table.remove(id);
  }

  tenantOf(id: number): Tenant {
    return this.tenants.at(this.table.tenant(id));
  }

  #keepMore(handles: number[]): number {
    return handles.length === 0 ? 0 : this.#more.keep(handles);
  }

  #forgetMore(id: number): void {
    this.#more.forget(this.table.extra(id));
  }
}
