/**
 * Reads and lookups. A read protects an object for as long as its lease lasts, counts as use, and says where the bytes
 * are. A lookup says whether the object is there: it protects too, but more weakly (order.ts), from its first grant on,
 * and is no use, so that probes cannot keep a cache from changing. Members of a group are protected together.
 */
import type { Keys } from '../core/keys.js';
import type { MissReason, ObjectInfo, Outcome } from './api.js';
import type { Books } from './books.js';
import { checkKeys } from './check.js';
import { refuse, UNKNOWN_TENANT } from './refusal.js';
import { STATUS } from './status.js';
import { HAS_CHECKSUM, ON_DISK, READ } from './table.js';
import type { Tenant } from './tenants.js';

export class Reads {
  readonly #books: Books;
  /** The id of a call about one key. */
  readonly #one = new Float64Array(1);

  constructor(books: Books) {
    this.#books = books;
  }

  getReplicas(keys: Keys, tenantName: string): Outcome<ObjectInfo>[] {
    checkKeys(keys);
    const now = this.#books.begin();
    const tenant = this.#books.tenants.find(tenantName);
    if (!tenant) return this.#missAll(keys.length);
    const { table, options } = this.#books;
    const ids = new Float64Array(keys.length);
    table.lookupMany(tenant.number, keys, 'read', now + options.leaseTtlMs, ids);
    const hits = this.#used(ids, now);
    this.#count(ids.length, hits);
    const answers = new Array<Outcome<ObjectInfo>>(ids.length);
    for (let i = 0; i < ids.length; i++) {
      answers[i] = ids[i] > 0 ? this.#hit(ids[i], now) : this.#miss(tenant, keys.at(i), ids[i]);
    }
    return answers;
  }

  /** The same for one key, 1 to 65,535 bytes: most calls of clients are about one. */
  getReplica(key: Uint8Array, tenantName: string): Outcome<ObjectInfo> {
    const now = this.#books.begin();
    const tenant = this.#books.tenants.find(tenantName);
    if (!tenant) return this.#missAll(1)[0];
    const { table, options } = this.#books;
    const ids = this.#one;
    ids[0] = table.lookup(tenant.number, key, 'read', now + options.leaseTtlMs);
    this.#count(1, this.#used(ids, now));
    return ids[0] > 0 ? this.#hit(ids[0], now) : this.#miss(tenant, key, ids[0]);
  }

  exist(keys: Keys, tenantName: string): Int32Array {
    checkKeys(keys);
    const now = this.#books.begin();
    const { table, options, tenants } = this.#books;
    const answers = new Int32Array(keys.length);
    const tenant = tenants.find(tenantName);
    if (!tenant) {
      this.#missAll(keys.length);
      return tenants.closed ? answers.fill(STATUS.unknownTenant) : answers;
    }
    const ids = new Float64Array(keys.length);
    table.lookupMany(tenant.number, keys, 'lookup', now + options.leaseTtlMs, ids, now);
    this.#count(keys.length, this.#found(ids, now));
    for (let i = 0; i < ids.length; i++) {
      if (ids[i] > 0) answers[i] = 1;
      else this.#miss(tenant, keys.at(i), ids[i]);
    }
    return answers;
  }

  /** The same for one key, 1 to 65,535 bytes: 1, 0, or a negative status. */
  has(key: Uint8Array, tenantName: string): number {
    const now = this.#books.begin();
    const { table, options, tenants } = this.#books;
    const tenant = tenants.find(tenantName);
    if (!tenant) {
      this.#missAll(1);
      return tenants.closed ? STATUS.unknownTenant : 0;
    }
    const ids = this.#one;
    ids[0] = table.lookup(tenant.number, key, 'lookup', now + options.leaseTtlMs, now);
    this.#count(1, this.#found(ids, now));
    if (ids[0] > 0) return 1;
    this.#miss(tenant, key, ids[0]);
    return 0;
  }

  peek(keys: Keys, tenantName: string): Outcome<ObjectInfo>[] {
    checkKeys(keys);
    this.#books.begin();
    const { tenants } = this.#books;
    const tenant = tenants.find(tenantName);
    return Array.from({ length: keys.length }, (_, i) => {
      if (!tenant) return tenants.closed ? UNKNOWN_TENANT : missed('absent');
      const id = this.#books.find(tenant.number, keys.at(i));
      if (id > 0 && this.#books.isReadable(id) && !this.#books.isAbsent(id))
        return { ok: true, value: { ...this.#info(id), leaseMs: 0 } };
      return missed(this.#reason(tenant, keys.at(i), -id));
    });
  }

  /** After a read: how many of these may be read now; the others are 0 or below it. */
  #used(ids: Float64Array, now: number): number {
    this.#settle(ids);
    this.#passOverAbsent(ids);
    this.#keepInOrder(ids);
    this.#protectGroups(ids, now, true);
    return positives(ids);
  }

  /** The same after a lookup. */
  #found(ids: Float64Array, now: number): number {
    this.#settle(ids);
    this.#passOverAbsent(ids);
    this.#protectGroups(ids, now, false);
    return positives(ids);
  }

  /** What was found, rid of copies in segments and on disks that are gone. */
  #settle(ids: Float64Array): void {
    if (this.#books.isSettled) return;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] === 0 ? 0 : this.#books.settle(Math.abs(ids[i]));
      ids[i] = id === 0 || this.#books.isReadable(id) ? id : -id;
    }
  }

  #hit(id: number, now: number): Outcome<ObjectInfo> {
    const value = this.#info(id);
    if (this.#books.diskCopies.isAlone(id)) this.#books.promotion.hit(id, now);
    return { ok: true, value };
  }

  #info(id: number): ObjectInfo {
    const { table, options } = this.#books;
    const size = table.size(id);
    const disk = this.#books.diskCopies.replica(id);
    return {
      replicas: this.#books.replicas(this.#books.offered(id), size, 'complete'),
      size,
      checksum: (table.flags(id) & HAS_CHECKSUM) !== 0 ? table.checksum(id) : undefined,
      leaseMs: options.leaseTtlMs,
      ...(disk && { disk }),
    };
  }

  /** Objects that are only in segments whose clients have not come back yet are as if their put had not ended. */
  #passOverAbsent(ids: Float64Array): void {
    if (this.#books.segments.absent === 0) return;
    for (let i = 0; i < ids.length; i++) if (ids[i] > 0 && this.#books.isAbsent(ids[i])) ids[i] = -ids[i];
  }

  /** What is read for the first time, or was taken out of the lists by eviction, comes to the list of what is read. */
  #keepInOrder(ids: Float64Array): void {
    const { table } = this.#books;
    let first = 0;
    while (first < ids.length && (ids[first] <= 0 || table.list(ids[first]) === READ)) first++;
    for (let i = first; i < ids.length; i++) if (ids[i] > 0) this.#use(ids[i]);
  }

  #use(id: number): void {
    const { table } = this.#books;
    // What is on a disk alone stays in its list, whose order the read has changed.
    if (table.list(id) !== ON_DISK) table.link(id, READ);
  }

  #protectGroups(ids: Float64Array, now: number, read: boolean): void {
    const { table, groups, options } = this.#books;
    if (groups.none) return;
    const seen = new Set<number>([0]);
    const until = now + options.leaseTtlMs;
    for (const id of ids) {
      const group = id > 0 ? table.group(id) : 0;
      if (seen.has(group)) continue;
      seen.add(group);
      for (const member of groups.members(group)) {
        if (!this.#books.isReadable(member)) continue;
        if (read) {
          table.setLeaseUntil(member, until);
          this.#use(member);
        } else if (table.lookupUntil(member) <= now) {
          table.setLookupUntil(member, until);
        }
      }
    }
  }

  #missAll(count: number): Outcome<never>[] {
    const { counters, tenants } = this.#books;
    this.#count(count, 0);
    counters[tenants.closed ? 'unknown-tenant' : 'absent'] += count;
    return Array(count).fill(tenants.closed ? UNKNOWN_TENANT : missed('absent'));
  }

  #miss(tenant: Tenant, key: Uint8Array, id: number): Outcome<never> {
    const reason = this.#reason(tenant, key, id);
    this.#books.counters[reason]++;
    return missed(reason);
  }

  #reason(tenant: Tenant, key: Uint8Array, id: number): MissReason {
    return id < 0 ? 'incomplete' : this.#books.losses.reason(tenant.number, key);
  }

  #count(lookups: number, hits: number): void {
    this.#books.counters.lookups += lookups;
    this.#books.counters.hits += hits;
  }
}

function positives(ids: Float64Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i++) if (ids[i] > 0) count++;
  return count;
}

function missed(reason: MissReason) {
  return refuse(reason === 'incomplete' ? STATUS.notReady : STATUS.notFound, reason);
}
