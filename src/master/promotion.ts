/**
 * Objects on their way from a disk back to memory. A read of an object that is on a disk alone counts; one that is read often
 * enough while memory has room is queued for the client whose disk it is on, which asks what to promote (`take`), where to
 * (`start`), writes the bytes there and says so (`end`), or that it could not (`fail`).
 */
import type { Outcome, Replica, Uuid } from './api.js';
import type { Books } from './books.js';
import type { Disk } from './disks.js';
import { refuse } from './refusal.js';
import { Sketch } from './sketch.js';
import { STATUS } from './status.js';
import type { Tenant } from './tenants.js';

interface Task {
  readonly disk: Disk;
  readonly tenant: Tenant;
  readonly size: number;
  /** When it was admitted, or its space was given out. */
  since: number;
  /** Where the client writes to, once it has asked. */
  handle?: number;
}

export interface PromotionCounters {
  admitted: number;
  completed: number;
  failed: number;
  /** Why a read led to no promotion: not read often enough yet, no room in memory, too many under way. */
  readonly refused: Record<'frequency' | 'watermark' | 'cap', number>;
}

/** Counters a row, 256 KB in all: it tells some 65,000 objects apart. */
const WIDTH = 2 ** 16;

export class Promotion {
  readonly counters: PromotionCounters = {
    admitted: 0,
    completed: 0,
    failed: 0,
    refused: { frequency: 0, watermark: 0, cap: 0 },
  };
  readonly #books: Books;
  readonly #sketch: Sketch | undefined;
  /** By record, in order of `since`. */
  readonly #tasks = new Map<number, Task>();
  readonly #waiting = new Map<Disk, Set<number>>();

  constructor(books: Books) {
    this.#books = books;
    if (books.options.promotionOnHit) this.#sketch = new Sketch(WIDTH);
  }

  get pending(): number {
    return this.#tasks.size;
  }

  get byteLength(): number {
    return this.#sketch?.byteLength ?? 0;
  }

  /** An object that is on a disk alone was read. */
  hit(id: number, now: number): void {
    if (!this.#sketch || this.#tasks.has(id)) return;
    const { options, segments, table, tenants, disks } = this.#books;
    const { refused } = this.counters;
    const size = table.size(id);
    if (this.#sketch.add(id) < options.promotionThreshold) refused.frequency++;
    else if (!(segments.fullness(size) <= options.evictionHighWatermark)) refused.watermark++;
    else if (this.#tasks.size >= options.promotionQueueLimit) refused.cap++;
    else {
      const disk = disks.at(table.disk(id));
      this.#tasks.set(id, { disk, tenant: tenants.at(table.tenant(id)), size, since: now });
      const waiting = this.#waiting.get(disk) ?? new Set();
      this.#waiting.set(disk, waiting.add(id));
      this.counters.admitted++;
    }
  }

  /** The next objects that a client is to promote. */
  take(disk: Disk): number[] {
    const waiting = this.#waiting.get(disk);
    const taken: number[] = [];
    for (const id of waiting ?? []) {
      if (taken.length === this.#books.options.promotionsPerHeartbeat) break;
      waiting?.delete(id);
      taken.push(id);
    }
    return taken;
  }

  /** Space for it: -703 it is not to be promoted, or has space; -600 another's, or another size; -200, -1700. */
  start(id: number, client: Uuid, size: number, preferredSegments: readonly string[], now: number): Outcome<Replica> {
    const task = this.#tasks.get(id);
    if (!task || task.handle !== undefined) return refuse(STATUS.notReady, 'not to be promoted');
    if (task.disk.client !== client || task.size !== size) return refuse(STATUS.invalidParams, 'another promotion');
    const { segments } = this.#books;
    const { tenant } = task;
    if (tenant.usedBytes + size > tenant.quotaBytes) return refuse(STATUS.quotaExceeded, 'over quota');
    // Nothing is evicted for it: what is in memory was used last.
    const hostId = segments.hostOf(client);
    const [handle] = segments.place(size, { copies: 1, preferredSegments, hostId, preferSameNode: hostId !== '' });
    if (handle === undefined) return refuse(STATUS.noSpace, 'no segment has room');
    task.handle = handle;
    task.since = now;
    this.#tasks.delete(id);
    this.#tasks.set(id, task);
    tenant.usedBytes += size;
    this.#books.journal?.reserved([handle], now + this.#books.options.putReleaseMs);
    return { ok: true, value: this.#books.replicas([handle], size, 'processing')[0] };
  }

  /** The bytes are there: the object is in memory again, and stays on the disk. */
  end(id: number, client: Uuid, now: number): number {
    const task = this.#tasks.get(id);
    if (task?.handle === undefined) return STATUS.notReady;
    if (task.disk.client !== client) return STATUS.invalidParams;
    this.#forget(id, task);
    this.counters.completed++;
    this.#books.diskCopies.returnToMemory(id, task.handle, now);
    return STATUS.ok;
  }

  /** The client could not: no write of it is under way any more. Ok also where there is no such promotion. */
  fail(id: number, client: Uuid, now: number): number {
    const task = this.#tasks.get(id);
    if (!task) return STATUS.ok;
    if (task.disk.client !== client) return STATUS.invalidParams;
    this.#giveUp(id, task, now, now);
    return STATUS.ok;
  }

  /** The object, or its copy on the disk, goes: its client may still be writing. */
  cancel(id: number, now: number): void {
    const task = this.#tasks.get(id);
    if (task) this.#giveUp(id, task, task.since + this.#books.options.putReleaseMs, now);
  }

  /** Its space is gone with a segment. */
  lose(id: number, loses: (handle: number, until: number) => boolean): void {
    const task = this.#tasks.get(id);
    if (task?.handle === undefined || !loses(task.handle, task.since + this.#books.options.putReleaseMs)) return;
    task.tenant.usedBytes -= task.size;
    this.#forget(id, task);
  }

  /** Space that clients may write to, and until when. */
  *reserved(): Generator<{ handle: number; until: number }> {
    const { putReleaseMs } = this.#books.options;
    for (const { handle, since } of this.#tasks.values()) {
      if (handle !== undefined) yield { handle, until: since + putReleaseMs };
    }
  }

  /** Gives up what no client has promoted in time. */
  expire(now: number): void {
    for (const [id, task] of this.#tasks) {
      if (now - task.since < this.#books.options.putReleaseMs) break;
      this.#giveUp(id, task, now, now);
    }
  }

  #giveUp(id: number, task: Task, safeAt: number, now: number): void {
    this.#forget(id, task);
    this.counters.failed++;
    if (task.handle === undefined) return;
    task.tenant.usedBytes -= task.size;
    if (safeAt <= now) this.#books.journal?.released([task.handle]);
    this.#books.keptBack.free([task.handle], safeAt, now);
  }

  #forget(id: number, { disk }: Task): void {
    this.#tasks.delete(id);
    this.#waiting.get(disk)?.delete(id);
    if (this.#waiting.get(disk)?.size === 0) this.#waiting.delete(disk);
  }
}
