/**
 * The calls of clients that lend disks: what to write to them (offload.ts), what was written, what is gone from them, and
 * what to bring back to memory (promotion.ts). Meaning: docs/compatibility.md, "Disks".
 *
 * A client says what its files have, also of times before this master. It is believed of keys that nobody knows, and of
 * objects that this master asked it to write; of another object with such a key its bytes may be an older content.
 */
import { boolean, string } from '../core/check.js';
import type { Keys } from '../core/keys.js';
import type { DiskStats, Outcome, Replica, Status, Uuid } from './api.js';
import type { Books } from './books.js';
import { checkKeys, checkUuid } from './check.js';
import type { Disk } from './disks.js';
import { refuse } from './refusal.js';
import { STATUS } from './status.js';
import { isTenantName } from './tenants.js';

/** An object that a client is to write to its disk, or to promote from it. */
export interface DiskTask {
  readonly tenant: string;
  readonly key: Uint8Array;
  readonly size: number;
}

/** What a client says of an object that it was to write, or that its files have. */
export interface Offloaded extends DiskTask {
  /** Address of the client's RPC service. */
  readonly endpoint: string;
  /** False: it could not be written. */
  readonly written: boolean;
}

/** Objects that one heartbeat hands out or gives up: some 10 ms of work, and no more than a client writes until the next. */
const MOST_OFFLOADS = 4096;

export class DiskReplicas {
  readonly #books: Books;

  constructor(books: Books) {
    this.#books = books;
  }

  /** Ok also where it is mounted already; -1300: this master has no use for disks. */
  mount(client: Uuid, accepts: boolean): Status {
    checkUuid('client', client);
    boolean('accepts', accepts);
    if (!this.#books.options.offload) return STATUS.offloadDisabled;
    this.#books.begin();
    this.#books.disks.mount(client, accepts);
    return STATUS.ok;
  }

  /** All copies on it are gone. Ok also where nothing is mounted; -1300. */
  unmount(client: Uuid): Status {
    checkUuid('client', client);
    if (!this.#books.options.offload) return STATUS.offloadDisabled;
    this.#books.begin();
    const disk = this.#books.disks.of(client);
    if (disk) this.#books.diskUnmounts.begin(disk);
    return STATUS.ok;
  }

  /** Objects to write; a client that accepts none gives up those that wait for it. -101: no disk is mounted. */
  takeOffloads(client: Uuid, accepts: boolean): Outcome<DiskTask[]> {
    return this.#ofDisk(client, (disk, now) => {
      const { offload } = this.#books;
      disk.accepts = boolean('accepts', accepts);
      if (accepts) return offload.take(disk, MOST_OFFLOADS).map((id) => this.#task(id));
      // The rest at the next heartbeat: nothing joins them.
      offload.drop(disk, MOST_OFFLOADS, now);
      return [];
    });
  }

  /** What the client's disk may hold, in bytes. -600 below 0, -101. */
  reportCapacity(client: Uuid, bytes: number): Status {
    if (!(bytes >= 0)) return STATUS.invalidParams;
    const outcome = this.#ofDisk(client, (disk) => {
      disk.capacityBytes = bytes;
    });
    return outcome.ok ? STATUS.ok : outcome.status;
  }

  /** -101: no disk is mounted. What is doubtful is passed over without a word: it is no error of the client's. */
  noteOffloads(client: Uuid, objects: readonly Offloaded[]): Status {
    const outcome = this.#ofDisk(client, (disk, now) => {
      for (const object of objects) this.#note(disk, object, now);
    });
    return outcome.ok ? STATUS.ok : outcome.status;
  }

  takePromotions(client: Uuid): Outcome<DiskTask[]> {
    return this.#ofDisk(client, (disk) => this.#books.promotion.take(disk).map((id) => this.#task(id)));
  }

  /** Space in memory for an object to be promoted: -704, and those of Promotion.start. */
  startPromotion(
    client: Uuid,
    key: Keys,
    size: number,
    preferredSegments: readonly string[],
    tenant: string,
  ): Outcome<Replica> {
    checkUuid('client', client);
    for (const [i, name] of preferredSegments.entries()) string(`preferredSegments[${i}]`, name);
    const now = this.#books.begin();
    const id = this.#find(key, 0, tenant);
    if (id === 0) return refuse(STATUS.notFound, 'absent');
    return this.#books.promotion.start(id, client, size, preferredSegments, now);
  }

  /** -704 absent, -703 no promotion of it has space, -600 it is another client's. */
  endPromotion(client: Uuid, key: Keys, tenant: string): Status {
    checkUuid('client', client);
    const now = this.#books.begin();
    const id = this.#find(key, 0, tenant);
    return id === 0 ? STATUS.notFound : this.#books.promotion.end(id, client, now);
  }

  /** -704 absent, -600 it is another client's. */
  failPromotion(client: Uuid, key: Keys, tenant: string): Status {
    checkUuid('client', client);
    const now = this.#books.begin();
    const id = this.#find(key, 0, tenant);
    return id === 0 ? STATUS.notFound : this.#books.promotion.fail(id, client, now);
  }

  /** The client's files have these no more: leases do not help, the bytes are gone. -704 absent, else ok. */
  evict(client: Uuid, keys: Keys, tenant: string): Status[] {
    checkUuid('client', client);
    checkKeys(keys);
    const now = this.#books.begin();
    const disk = this.#books.disks.of(client);
    return Array.from({ length: keys.length }, (_, i) => {
      const id = this.#find(keys, i, tenant);
      if (id === 0) return STATUS.notFound;
      if (disk && this.#books.table.disk(id) === disk.number) this.#books.diskCopies.lose(id, 'evicted', now);
      return STATUS.ok;
    });
  }

  /** Whether all that was on the disk was removed, so that the client may delete its files; said once. -101. */
  mayWipe(client: Uuid): Outcome<boolean> {
    return this.#ofDisk(client, (disk) => {
      const may = disk.mayWipe && disk.objects === 0;
      disk.mayWipe = false;
      return may;
    });
  }

  stats(): DiskStats {
    const { disks, diskCopies, offload, promotion } = this.#books;
    const { admitted, completed, failed, refused } = promotion.counters;
    const sum = (field: 'objects' | 'usedBytes' | 'capacityBytes') =>
      disks.all.reduce((total, disk) => total + disk[field], 0);
    return {
      disks: disks.all.length,
      objects: sum('objects'),
      objectsOnDiskAlone: diskCopies.alone,
      usedBytes: sum('usedBytes'),
      capacityBytes: sum('capacityBytes'),
      offloads: offload.pending,
      promotions: promotion.pending,
      promotionsAdmitted: admitted,
      promotionsCompleted: completed,
      promotionsFailed: failed,
      promotionsRefused: { ...refused },
    };
  }

  #ofDisk<T>(client: Uuid, run: (disk: Disk, now: number) => T): Outcome<T> {
    checkUuid('client', client);
    const now = this.#books.begin();
    const disk = this.#books.disks.of(client);
    return disk ? { ok: true, value: run(disk, now) } : refuse(STATUS.segmentNotFound, 'the client lends no disk');
  }

  #task(id: number): DiskTask {
    const { table, tenants } = this.#books;
    return { tenant: tenants.at(table.tenant(id)).name, key: table.key(id), size: table.size(id) };
  }

  #find(keys: Keys, i: number, tenantName: string): number {
    checkKeys(keys);
    const tenant = this.#books.tenants.find(tenantName);
    return tenant ? this.#books.find(tenant.number, keys.at(i)) : 0;
  }

  #note(disk: Disk, { tenant: name, key, size, endpoint, written }: Offloaded, now: number): void {
    const books = this.#books;
    const { table, offload, tenants } = books;
    if (!isTenantName(name)) return;
    const tenant = tenants.find(name, written);
    if (!tenant) return;
    const isStale = offload.wasStale(disk, tenant.number, decoder.decode(key));
    const id = books.find(tenant.number, key);
    const wasAsked = id !== 0 && !isStale && offload.end(id, disk, now);
    if (!written || isStale || !(Number.isSafeInteger(size) && size > 0)) return;
    disk.endpoint = endpoint;
    if (id === 0) books.diskCopies.enter(tenant, key, size, disk);
    else if (wasAsked && books.isReadable(id) && table.size(id) === size && table.disk(id) === 0) {
      books.diskCopies.note(id, disk);
    }
  }
}

// As the object table shows keys.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
