/**
 * Copying and moving of objects that are readable, in two phases like puts: `start` reserves space in the segments that are
 * named, `end` makes what was written there readable, `revoke` gives it back. Nothing is evicted for a copy: where there is
 * no space, it does not begin. A move lets go of its source when it ends; who reads that under a lease may do so until the
 * lease ends. What happens to either when objects, segments and clients go meanwhile: docs/compatibility.md.
 */
import { string } from '../core/check.js';
import { keyBytes } from '../core/keys.js';
import type { Outcome, Replica, Status, Uuid } from './api.js';
import type { Books } from './books.js';
import { checkUuid } from './check.js';
import type { Copying } from './copying.js';
import { refuse, UNKNOWN_TENANT } from './refusal.js';
import type { Segment } from './segments.js';
import { STATUS } from './status.js';
import { BUSY } from './table.js';

export interface CopyRequest {
  readonly kind: 'copy' | 'move';
  readonly client: Uuid;
  readonly key: Uint8Array;
  readonly tenant: string;
  /** Name of the segment to read from, and of those to write to. A move has one target. */
  readonly source: string;
  readonly targets: readonly string[];
  /** What `end` and `revoke` have to name as well. Default: nothing. */
  readonly token?: string;
  /** False for one that names a lease which nobody gave: -1010. Default true. */
  readonly isGranted?: boolean;
}

export type CopyEnd = Pick<CopyRequest, 'kind' | 'client' | 'key' | 'tenant' | 'token'>;

/** What to read, and where to write it: no targets where the object has copies in all that were named. */
export interface CopyPlan {
  readonly source: Replica;
  readonly targets: readonly Replica[];
}

/** A copy of an object in a segment that is to be emptied. */
export interface Located {
  readonly id: number;
  readonly key: Uint8Array;
  readonly tenant: string;
  readonly size: number;
  /** The segment's name, and those of all segments that have a copy. */
  readonly source: string;
  readonly segments: readonly string[];
  /** It is being written, copied or moved, and cannot be moved now. */
  readonly isBusy: boolean;
}

export class Copies {
  readonly #books: Books;

  constructor(books: Books) {
    this.#books = books;
  }

  /** Copies and moves under way. */
  get count(): number {
    return this.#books.copying.count;
  }

  /**
   * -101 unknown target, -1010 a target that leaves, -704 absent, -708 busy, -710 no readable copy in the source, -200 no
   * room in a target, -1700 over quota.
   */
  start(request: CopyRequest): Outcome<CopyPlan> {
    const { kind, client, source, token = '', isGranted = true } = request;
    checkUuid('client', client);
    string('source', source);
    const targets = [...new Set(request.targets)];
    for (const name of targets) string('targets', name);
    if (kind === 'move' && targets.includes(source)) return refuse(STATUS.invalidParams, 'source and target are one');
    const unfit = isGranted ? this.#unfit(targets) : undefined;
    if (unfit) return unfit;
    const now = this.#books.begin();
    const id = this.#find(request);
    if (typeof id !== 'number') return id;
    const { table, copying, puts, segments } = this.#books;
    if (this.isBusy(id, request)) return refuse(STATUS.hasTask, 'it is being copied, moved or written to a disk');
    if (!isGranted) return refuse(STATUS.unavailable, 'nobody asked for this copy');
    const readable = !puts.has(id) && this.#books.isReadable(id);
    const handles = readable ? this.#books.offered(id) : [];
    const from = handles.find((handle) => segments.of(handle).info.name === source);
    if (from === undefined) return refuse(STATUS.replicaNotFound, `no readable copy in ${source}`);
    const size = table.size(id);
    const missing = targets.filter((name) => !handles.some((handle) => segments.of(handle).info.name === name));
    const tenant = this.#books.tenantOf(id);
    // A move takes more for a while only.
    if (kind === 'copy' && tenant.usedBytes + size * missing.length > tenant.quotaBytes) {
      return refuse(STATUS.quotaExceeded, `the quota of ${tenant.quotaBytes} bytes of tenant ${tenant.name}`);
    }
    const placed: number[] = [];
    for (const name of missing) {
      const handle = segments.placeNamed(size, name);
      if (handle === undefined) {
        this.#books.keptBack.free(placed, now, now);
        return refuse(STATUS.noSpace, `${name} has no room for ${size} bytes`);
      }
      placed.push(handle);
    }
    const wanted = placed.length;
    copying.start(id, { kind, client, startedAt: now, token, source: from, targets: placed, wanted });
    const [one] = this.#books.replicas([from], size, 'complete');
    return { ok: true, value: { source: one, targets: this.#books.replicas(placed, size, 'processing') } };
  }

  /**
   * -704 absent, -709 nothing under way, -601 another client's, -600 of the other kind, -300 another token; -712 the source
   * or a target has gone with its segment: targets that are left become readable where the source was there to the end.
   */
  end(call: CopyEnd): Status {
    const now = this.#books.begin();
    const found = this.#own(call);
    if (typeof found === 'number') return found;
    const [id, copying] = found;
    const { source, targets, wanted, kind } = copying;
    if (source === undefined) {
      this.#books.copying.revoke(id, copying, now, now);
      return STATUS.replicaGone;
    }
    this.#books.copying.complete(id, copying, now);
    if (targets.length < wanted) return STATUS.replicaGone;
    if (kind === 'copy') return STATUS.ok;
    // The copy that made a target needless may have gone meanwhile.
    if (this.#books.offered(id).length === 1) return STATUS.replicaGone;
    this.#books.dropCopy(id, source, now);
    return STATUS.ok;
  }

  /** As `end`, but nothing becomes readable. */
  revoke(call: CopyEnd): Status {
    const now = this.#books.begin();
    const found = this.#own(call);
    if (typeof found === 'number') return found;
    this.#books.copying.revoke(...found, now, now);
    return STATUS.ok;
  }

  /** What a client that is gone was copying comes to nothing. */
  forget(client: Uuid): void {
    this.#books.copying.discardOf(client, this.#books.begin());
  }

  /** Some of the objects, to be asked about with `locate`; `cursor`: where to go on, 0 at the end. */
  scan(cursor: number, most: number): { ids: Float64Array | readonly number[]; cursor: number } {
    return this.#books.table.scan(cursor, most);
  }

  /** An object's copy in a segment of one of these names, readable or being written; undefined where there is none. */
  locate(id: number, names: ReadonlySet<string>): Located | undefined {
    const { table, segments, puts, tenants } = this.#books;
    if (!table.has(id) || this.#books.settle(id) === 0) return undefined;
    const put = puts.get(id);
    const copying = this.#books.copying.get(id);
    const readable = this.#books.isReadable(id) ? this.#books.handles(id) : [];
    const all = [...readable, ...(put?.handles ?? []), ...(copying?.targets ?? [])];
    const found = all.map((handle) => segments.of(handle).info.name);
    const source = found.find((name) => names.has(name));
    if (source === undefined) return undefined;
    const isBusy = put !== undefined || (table.flags(id) & BUSY) !== 0;
    const tenant = tenants.at(table.tenant(id)).name;
    return { id, key: table.key(id), tenant, size: table.size(id), source, segments: found, isBusy };
  }

  isBusy(id: number, { client, key }: Pick<CopyRequest, 'client' | 'key'>): boolean {
    const { table, copying } = this.#books;
    return (table.flags(id) & BUSY) !== 0 || copying.isStray(client, table.tenant(id), key, this.#books.now);
  }

  #unfit(targets: readonly string[]): Outcome<never> | undefined {
    for (const name of targets) {
      const named: readonly Segment[] = this.#books.segments.named(name);
      if (named.length === 0) return refuse(STATUS.segmentNotFound, `no segment ${name}`);
      if (named.every(({ isLeaving }) => isLeaving)) return refuse(STATUS.unavailable, `${name} takes nothing new`);
    }
    return undefined;
  }

  #find({ key, tenant: name }: Pick<CopyRequest, 'key' | 'tenant'>): number | ReturnType<typeof refuse> {
    const { tenants } = this.#books;
    const tenant = tenants.find(name);
    if (!tenant && tenants.closed) return UNKNOWN_TENANT;
    const id = tenant ? this.#books.find(tenant.number, keyBytes('key', key)) : 0;
    return id === 0 ? refuse(STATUS.notFound, 'absent') : id;
  }

  /** The copy that a client may end; or why not. */
  #own({ kind, client, key, tenant: name, token = '' }: CopyEnd): [number, Copying] | Status {
    checkUuid('client', client);
    const { copying, tenants } = this.#books;
    const tenant = tenants.find(name);
    const id = this.#find({ key, tenant: name });
    const mine = typeof id === 'number' ? copying.get(id) : undefined;
    if (tenant && mine?.client !== client) copying.hasEnded(client, tenant.number, key);
    if (typeof id !== 'number') return id.status;
    if (!mine) return STATUS.noTask;
    if (mine.client !== client) return STATUS.notOwner;
    if (mine.kind !== kind) return STATUS.invalidParams;
    return mine.token === token ? [id, mine] : STATUS.otherVersion;
  }
}
