/**
 * Eviction: makes room by giving up the least recently used objects that may go, a batch at a time. It runs when a put
 * would fill the store above the watermark, when nothing fits, and when a tenant reaches its quota (then among the
 * tenant's own). One call passes over so much that is protected and no more (patience.ts). An object that is on a disk gives up its memory and stays known; where eviction is what brings objects to
 * disks, it is queued for one first, and goes in a later run. Of each grade of protection (order.ts) the next is looked at only when the one below has nothing left.
 */
import { evictionBatch } from '../eviction/store.js';
import type { Books } from './books.js';
import { FREE, gradeOf, LOOKED_UP, SOFT_PINNED } from './order.js';
import type { Preferences } from './segments.js';
import { READ, UNREAD } from './table.js';
import type { Tenant } from './tenants.js';

export class Eviction {
  readonly #books: Books;
  readonly #grades: readonly number[];
  /** Of the run: objects that were queued for disks, and whether it cannot go on. */
  #queued = 0;
  #stopped = false;

  constructor(books: Books) {
    this.#books = books;
    this.#grades = books.options.allowEvictSoftPinned ? [FREE, LOOKED_UP, SOFT_PINNED] : [FREE, LOOKED_UP];
  }

  /**
   * Space for an object no larger than the largest segment, evicting as needed: handles of up to `copies` allocations,
   * none where nothing may go.
   */
  place(size: number, preferences: Preferences, now: number): number[] {
    const { segments } = this.#books;
    this.keepBelowWatermark(size * preferences.copies, now);
    for (;;) {
      const handles = segments.place(size, preferences);
      if (handles.length > 0) return handles;
      if (this.#books.release(now) === 0 && this.run(now) === 0) return handles;
    }
  }

  /** Room for no more bytes than the quota in a tenant's quota. False where what is left is protected. */
  placeInQuota(tenant: Tenant, bytes: number, now: number): boolean {
    while (tenant.usedBytes + bytes > tenant.quotaBytes) if (this.run(now, tenant) === 0) return false;
    return true;
  }

  /** Evicts where so many bytes more would pass the watermark. Space that no call has had the time to release comes first. */
  keepBelowWatermark(bytes: number, now: number): void {
    if (!this.#isPastWatermark(bytes)) return;
    if (this.#books.release(now) === 0 || this.#isPastWatermark(bytes)) this.run(now);
  }

  #isPastWatermark(bytes: number): boolean {
    const { segments, options } = this.#books;
    return segments.fullness(bytes) > options.evictionHighWatermark;
  }

  /** One run: gives up a share of the objects (of the tenant's, where one is given), at least one; how many went. */
  run(now: number, tenant?: Tenant): number {
    const { counters, options, objects, diskCopies } = this.#books;
    const inMemory = tenant ? tenant.objects - tenant.diskOnly : objects - diskCopies.alone;
    const wanted = evictionBatch(inMemory, options.evictionRatio);
    this.#queued = 0;
    this.#stopped = false;
    let gone = 0;
    for (const grade of this.#grades) {
      while (gone + this.#queued < wanted && !this.#stopped) {
        const id = this.#oldest(grade, now, tenant);
        if (id === 0) break;
        gone += this.#evict(id, grade, now);
      }
      // What is left of this grade may be all free: none of the next goes before that is known.
      if (gone + this.#queued > 0 || this.#stopped || this.#books.patience.isOver) break;
    }
    counters.evictions++;
    if (gone === 0) counters.fruitlessEvictions++;
    return gone;
  }

  #oldest(grade: number, now: number, tenant: Tenant | undefined): number {
    const { order } = this.#books;
    if (tenant?.order) return tenant.order.oldest(grade, now);
    if (grade !== FREE) return order.oldest(grade, now);
    const [read, unread] = [this.#oldestOf(READ, now), this.#oldestOf(UNREAD, now)];
    return this.#older(order.oldest(FREE, now), this.#older(read, unread));
  }

  /** The least recently used free object of a list, or 0. What else protects those before it sets them aside. */
  #oldestOf(list: number, now: number): number {
    const { table, order, patience } = this.#books;
    for (;;) {
      const id = table.oldest(list);
      if (id === 0 || gradeOf(table, id, now) === FREE) return id;
      if ((list === READ && table.leaseUntil(id) > now) || !patience.take()) return 0;
      table.unlink(id);
      order.setAside(id, now);
    }
  }

  /** Of two objects, or 0 for none, the one that was used earlier. */
  #older(a: number, b: number): number {
    if (a === 0 || b === 0) return a || b;
    return this.#books.table.stamp(a) < this.#books.table.stamp(b) ? a : b;
  }

  /** Gives up an object and those of its group that may go as it may; how many. */
  #evict(id: number, grade: number, now: number): number {
    const { table, groups } = this.#books;
    const group = table.group(id);
    if (group === 0) return this.#giveUp(id, now);
    let gone = 0;
    for (const member of [...groups.members(group)]) {
      if (gradeOf(table, member, now) <= grade) gone += this.#giveUp(member, now);
    }
    return gone;
  }

  /** Gives an object's memory up: 1; or 0 where a disk is to have it first. */
  #giveUp(id: number, now: number): number {
    const { counters, table } = this.#books;
    const onDisk = table.disk(id) !== 0;
    if (!onDisk && this.#waitsForDisk(id, now)) return 0;
    counters.evictedObjects++;
    counters.evictedBytes += table.size(id);
    if (onDisk) this.#books.diskCopies.leaveMemory(id, now);
    else this.#books.drop(id, 'evicted', now);
    return 1;
  }

  /** Whether an object stays until it is on a disk; it is queued for one, or the run ends because none has room for it. */
  #waitsForDisk(id: number, now: number): boolean {
    const { offload, options } = this.#books;
    if (!options.offloadOnEvict) return false;
    const disk = offload.diskFor(id);
    if (!disk) return false;
    const cap = Math.max(1, options.offloadQueueLimit * options.offloadCapRatio);
    if (this.#queued < cap && offload.request(id, disk, now)) {
      this.#queued++;
      return true;
    }
    this.#stopped = !options.offloadForceEvict;
    return this.#stopped;
  }
}
