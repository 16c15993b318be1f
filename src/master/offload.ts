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
import type { Uuid } from './api.js';
import type { Books } from './books.js';
import type { Disk } from './disks.js';
import { OFFLOADING } from './table.js';

interface Pending {
  readonly disk: Disk;
  readonly since: number;
}

/** Objects of one disk: those that its client is to be told of, and those that it is at. */
interface Queue {
  readonly waiting: Set<number>;
  readonly taken: Set<number>;
}

/** Stale reports that are remembered of a client; the oldest gives way. */
const MAX_STALE = 65_536;
/** Clients of which there are some. */
const MAX_CLIENTS = 1024;

export class Offload {
  readonly #books: Books;
  /** By record, in order of their request. */
  readonly #pending = new Map<number, Pending>();
  readonly #queues = new Map<Disk, Queue>();
  /** Of clients, whatever has become of their disks: a report may come when its client has mounted another meanwhile. */
  readonly #stale = new Map<Uuid, Set<string>>();

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
    const queue = this.#queues.get(disk) ?? { waiting: new Set(), taken: new Set() };
    if (queue.waiting.size >= options.offloadQueueLimit) return false;
    this.#queues.set(disk, queue);
    queue.waiting.add(id);
    this.#pending.set(id, { disk, since: now });
    table.setFlags(id, table.flags(id) | OFFLOADING);
    return true;
  }

  /** The next objects that a client is to write, at most so many. */
  take(disk: Disk, most: number): number[] {
    const queue = this.#queues.get(disk);
    const taken: number[] = [];
    for (const id of queue?.waiting ?? []) {
      if (taken.length === most) break;
      queue?.waiting.delete(id);
      queue?.taken.add(id);
      taken.push(id);
    }
    return taken;
  }

  /** The client has written it, or could not: the object is held no longer. Whether this client was at it. */
  end(id: number, disk: Disk, now: number): boolean {
    // What it says of one that it was not handed yet is about an older content.
    if (!this.#queues.get(disk)?.taken.has(id)) return false;
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
    this.#noteStale(id, pending);
    this.#forget(id, pending);
  }

  /** Whether a report of a key is about content that is gone; it is asked once. */
  wasStale(disk: Disk, tenant: number, key: string): boolean {
    return this.#stale.get(disk.client)?.delete(`${tenant} ${key}`) ?? false;
  }

  /** A disk takes nothing more: what waits for it is held no longer. At most so many at once. */
  drop(disk: Disk, most: number, now: number): void {
    let left = most;
    for (const id of this.#queues.get(disk)?.waiting ?? []) {
      if (left-- === 0) return;
      this.#release(id, now);
    }
  }

  /** A disk goes: nothing is held for it. At most so many at once; whether that was all. */
  forget(disk: Disk, most: number, now: number): boolean {
    const { waiting, taken } = this.#queues.get(disk) ?? NOTHING;
    let left = most;
    for (const queue of [taken, waiting]) {
      for (const id of queue) {
        if (left-- === 0) return false;
        this.#noteStale(id, { disk });
        this.#release(id, now);
      }
    }
    this.#queues.delete(disk);
    return true;
  }

  /** Gives up what no client has written in time. */
  expire(now: number): void {
    for (const [id, pending] of this.#pending) {
      if (now - pending.since < this.#books.options.putReleaseMs) break;
      this.#noteStale(id, pending);
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
    const queue = this.#queues.get(disk);
    queue?.waiting.delete(id);
    queue?.taken.delete(id);
    table.setFlags(id, table.flags(id) & ~OFFLOADING);
  }

  /** What a client says of an object that it is at is about what goes now. */
  #noteStale(id: number, { disk }: Pick<Pending, 'disk'>): void {
    if (!this.#queues.get(disk)?.taken.has(id)) return;
    const { table } = this.#books;
    const stale = this.#stale.get(disk.client) ?? new Set();
    this.#stale.set(disk.client, stale.add(`${table.tenant(id)} ${table.keyText(id)}`));
    giveWay(stale, MAX_STALE);
    giveWay(this.#stale, MAX_CLIENTS);
  }
}

const NOTHING: Queue = { waiting: new Set(), taken: new Set() };

/** Of more than so many entries the oldest goes. */
function giveWay<K>(entries: { size: number; keys(): Iterator<K>; delete(key: K): boolean }, most: number): void {
  if (entries.size > most) entries.delete(entries.keys().next().value as K);
}
