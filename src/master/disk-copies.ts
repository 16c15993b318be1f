/**
 * Copies of objects on disks, as the books keep them: which disk has a copy is in the record; an object whose last copy in
 * memory goes stays known while a disk has one. Such objects are in a list of their own, give up no memory, and are the
 * first to be forgotten when the table is full.
 */
import type { DiskReplica } from './api.js';
import type { Books } from './books.js';
import type { Disk } from './disks.js';
import type { LossReason } from './losses.js';
import { COMPLETE, DISK_ONLY, HARD_PINNED, ON_DISK, READ } from './table.js';
import type { Tenant } from './tenants.js';

/** Above the handles of memory: two copies of an object hardly have one id. */
const REPLICA_IDS = Number.MAX_SAFE_INTEGER;

export class DiskCopies {
  /** Readable objects that are on a disk alone. */
  alone = 0;
  readonly #books: Books;

  constructor(books: Books) {
    this.#books = books;
  }

  isAlone(id: number): boolean {
    return (this.#books.table.flags(id) & DISK_ONLY) !== 0;
  }

  /** The copy on a disk of a readable object. */
  replica(id: number): DiskReplica | undefined {
    const { table, disks } = this.#books;
    const number = table.disk(id);
    if (number === 0) return undefined;
    const { client, endpoint } = disks.at(number);
    return { id: REPLICA_IDS - number, kind: 'disk', client, endpoint, size: table.size(id) };
  }

  /** Content that a client has on its disk and nobody knows: a readable object. False where the table is full. */
  enter(tenant: Tenant, key: Uint8Array, size: number, disk: Disk): boolean {
    const { table } = this.#books;
    const id = table.insert(tenant.number, key);
    if (id <= 0) return false;
    table.setState(id, COMPLETE);
    table.setSize(id, size);
    this.#books.objects++;
    tenant.objects++;
    this.note(id, disk);
    this.endInMemory(id);
    return true;
  }

  /** A readable object has a copy on a disk. */
  note(id: number, disk: Disk): void {
    const { table } = this.#books;
    table.setDisk(id, disk.number);
    disk.objects++;
    disk.usedBytes += table.size(id);
  }

  /** The copy on a disk is gone. */
  lose(id: number, reason: LossReason, now: number): void {
    if (this.isAlone(id)) this.#books.drop(id, reason, now);
    else this.#forget(id);
  }

  /** The copies in memory of an object that is on a disk give up their space. */
  leaveMemory(id: number, now: number): void {
    const { table, keptBack } = this.#books;
    const handles = this.#books.handles(id);
    this.#books.journal?.lost(id);
    this.endInMemory(id);
    keptBack.free(handles, table.leaseUntil(id), now);
  }

  /** From now on an object is on its disk alone; what its copies in memory took is the caller's. */
  endInMemory(id: number): void {
    const { table } = this.#books;
    this.#books.clearHandles(id);
    table.setFlags(id, table.flags(id) | DISK_ONLY);
    table.link(id, ON_DISK);
    this.#count(id, 1);
  }

  /** An object that was on a disk alone has a copy in memory again, which its tenant is charged for already. */
  returnToMemory(id: number, handle: number, now: number): void {
    const { table } = this.#books;
    this.#count(id, -1);
    table.setFlags(id, table.flags(id) & ~DISK_ONLY);
    table.setHandle(id, handle);
    table.link(id, READ);
    if ((table.flags(id) & HARD_PINNED) === 0) this.#books.tenantOf(id).order?.add(id, now);
    this.#books.journal?.kept(id);
  }

  /** Readable content ends, on the disk too. */
  close(id: number): void {
    const { table } = this.#books;
    if (table.disk(id) !== 0) this.#forget(id);
    if (!this.isAlone(id)) return;
    this.#count(id, -1);
    table.setFlags(id, table.flags(id) & ~DISK_ONLY);
  }

  /** The oldest object that is on a disk alone is forgotten, so that the table has room; whether there was one. */
  forgetOldest(now: number): boolean {
    const id = this.#books.table.oldest(ON_DISK);
    if (id === 0) return false;
    this.#books.drop(id, 'evicted', now);
    return true;
  }

  #count(id: number, by: 1 | -1): void {
    this.alone += by;
    this.#books.tenantOf(id).diskOnly += by;
  }

  #forget(id: number): void {
    const { table, disks } = this.#books;
    const disk = disks.at(table.disk(id));
    disk.objects--;
    disk.usedBytes -= table.size(id);
    table.setDisk(id, 0);
  }
}
