/**
 * Objects on their way from memory to a disk. The client that lends the memory has them written to its own disk: it asks
 * what to write (`take`) and says what it has written (disk-replicas.ts). Until then an object is held in memory, at most
 * for as long as a put may last.
 *
 *   put ends, or eviction ─► waiting (a queue a disk) ─► taken ─► noted on the disk, or given up
 *
 * What is written belongs to content that may be gone by the time the client says so: its key is remembered as stale, and
 * that report is not believed, or a later content of the same key would be read from old bytes.
 */
import type { Books } from './books.js';
import type { Disk } from './disks.js';
import { OFFLOADING } from './table.js';

interface Pending {
  readonly disk: Disk;
  readonly since: number;
  taken: boolean;
}

/** Stale reports that are remembered a disk; the oldest gives way. */
const MAX_STALE = 65_536;

export class Offload {
  readonly #books: Books;
  /** By record, in order of their request. */
  readonly #pending = new Map<number, Pending>();
  readonly #waiting = new Map<Disk, Set<number>>();
  readonly #stale = new Map<Disk, Set<string>>();

  constructor(books: Books) {
    this.#books = books;
  }

  /** Objects that are to be written or being written. */
  get pending(): number {
    return this.#pending.size;
  }

  /** A disk that could take an object: of a client that lends memory with a copy of it. */
  diskFor(id: number): Disk | undefined {
    const { disks, segments } = this.#books;
    for (const handle of this.#books.handles(id)) {
      const disk = disks.of(segments.of(handle).client);
      if (disk?.accepts) return disk;
    }
    return undefined;
  }

  /** Asks for an object that is readable in memory and on no disk to be written to `disk`. False: too many are waiting. */
  request(id: number, disk: Disk, now: number): boolean {
    const { table, options } = this.#books;
    if (this.#pending.has(id)) return true;
    const waiting = this.#waiting.get(disk) ?? new Set();
    if (waiting.size >= options.offloadQueueLimit) return false;
    this.#waiting.set(disk, waiting.add(id));
    this.#pending.set(id, { disk, since: now, taken: false });
    table.setFlags(id, table.flags(id) | OFFLOADING);
    return true;
  }

  /** The next objects that a client is to write, at most so many. */
  take(disk: Disk, most: number): number[] {
    const waiting = this.#waiting.get(disk);
    const taken: number[] = [];
    for (const id of waiting ?? []) {
      if (taken.length === most) break;
      waiting?.delete(id);
      this.#pending.get(id)!.taken = true;
      taken.push(id);
    }
    return taken;
  }

  /** The client has written it, or could not: the object is held no longer. Whether this client was at it. */
  end(id: number, disk: Disk, now: number): boolean {
    const pending = this.#pending.get(id);
    // What it says of one that it was not handed yet is about an older content.
    if (pending?.disk !== disk || !pending.taken) return false;
    this.#release(id, now);
    return true;
  }

  /** The copies that an object is being written from, perhaps. */
  sources(id: number): number[] {
    const pending = this.#pending.get(id);
    if (!pending) return [];
    const { segments } = this.#books;
    return this.#books.handles(id).filter((handle) => segments.of(handle).client === pending.disk.client);
  }

  /** A copy that it is written from goes: what is written may be of whatever comes to lie there. */
  giveUp(id: number, now: number): void {
    this.cancel(id);
    this.#books.released(id, now);
  }

  /** The content goes: what is written of it is of no use. */
  cancel(id: number): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (pending.taken) this.#noteStale(pending.disk, this.#name(id));
    this.#forget(id, pending);
  }

  /** Whether a report of a key is about content that is gone; it is asked once. */
  wasStale(disk: Disk, tenant: number, key: string): boolean {
    return this.#stale.get(disk)?.delete(`${tenant} ${key}`) ?? false;
  }

  /** A disk takes nothing more: what waits for it is held no longer. */
  drop(disk: Disk, now: number): void {
    for (const id of this.#waiting.get(disk) ?? []) this.#release(id, now);
    this.#waiting.delete(disk);
  }

  /** A disk goes: nothing is held for it. */
  forget(disk: Disk, now: number): void {
    for (const [id, pending] of this.#pending) if (pending.disk === disk) this.#release(id, now);
    this.#waiting.delete(disk);
    this.#stale.delete(disk);
  }

  /** Gives up what no client has written in time. */
  expire(now: number): void {
    for (const [id, pending] of this.#pending) {
      if (now - pending.since < this.#books.options.putReleaseMs) break;
      if (pending.taken) this.#noteStale(pending.disk, this.#name(id));
      this.#release(id, now);
    }
  }

  #release(id: number, now: number): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#forget(id, pending);
    this.#books.released(id, now);
  }

  #forget(id: number, { disk }: Pending): void {
    const { table } = this.#books;
    this.#pending.delete(id);
    this.#waiting.get(disk)?.delete(id);
    table.setFlags(id, table.flags(id) & ~OFFLOADING);
  }

  #name(id: number): string {
    const { table } = this.#books;
    return `${table.tenant(id)} ${table.keyText(id)}`;
  }

  #noteStale(disk: Disk, name: string): void {
    const stale = this.#stale.get(disk) ?? new Set();
    this.#stale.set(disk, stale.add(name));
    if (stale.size > MAX_STALE) for (const oldest of stale) return void stale.delete(oldest);
  }
}
