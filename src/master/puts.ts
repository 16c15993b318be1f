/**
 * Puts and upserts, in two phases: `start` reserves space that nobody can read, `end` makes it readable, `revoke` gives it
 * back. A put whose client is silent for long may be preempted, and in the end is discarded (docs/store.md).
 */
import { boolean, options as checkOptions, integer, oneOf, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { Outcome, Replica, ReplicateConfig, Status, Uuid } from './api.js';
import type { Books, Put } from './books.js';
import { checkKeys, checkUuid } from './check.js';
import type { Eviction } from './eviction.js';
import { refuse, UNKNOWN_TENANT } from './refusal.js';
import type { Preferences } from './segments.js';
import { STATUS } from './status.js';
import { BUSY, HARD_PINNED, OFFLOADING } from './table.js';
import type { Tenant } from './tenants.js';

const MAX_COPIES = 1024;
const EXISTS = refuse(STATUS.exists, 'exists');

interface Wanted {
  readonly preferences: Preferences;
  readonly softPin: 'preserve' | 'enable' | 'disable';
  readonly softPinTtlMs: number;
  readonly hardPin: boolean;
  /** Group of a key; undefined: none, or the one that it has. */
  group(i: number): string | undefined;
}

interface Start {
  readonly client: Uuid;
  readonly tenant: Tenant;
  readonly key: Uint8Array;
  readonly size: number;
  readonly wanted: Wanted;
  readonly group: string | undefined;
  readonly now: number;
}

export class Puts {
  readonly #books: Books;
  readonly #eviction: Eviction;

  constructor(books: Books, eviction: Eviction) {
    this.#books = books;
    this.#eviction = eviction;
  }

  start(
    client: Uuid,
    keys: Keys,
    sizes: Float64Array,
    config: ReplicateConfig,
    tenantName: string,
    upsert: boolean,
  ): Outcome<Replica[]>[] {
    checkUuid('client', client);
    checkKeys(keys);
    if (!(sizes instanceof Float64Array) || sizes.length !== keys.length) {
      throw errors.invalidArgument('sizes', sizes, `a Float64Array of ${keys.length} elements, one a key`);
    }
    const wanted = resolveConfig(config, keys.length, this.#books, client);
    const now = this.#books.begin();
    const tenant = this.#books.tenants.find(tenantName, true);
    const answers = new Array<Outcome<Replica[]>>(sizes.length);
    for (let i = 0; i < sizes.length; i++) {
      const size = sizes[i];
      if (!tenant) {
        answers[i] = UNKNOWN_TENANT;
      } else if (!(Number.isSafeInteger(size) && size > 0)) {
        answers[i] = refuse(STATUS.invalidParams, `a size must be a number of bytes from 1, got ${size}`);
      } else {
        const start = { client, tenant, key: keys.at(i), size, wanted, group: wanted.group(i), now };
        answers[i] = upsert ? this.#startUpsert(start) : this.#startPut(start);
      }
    }
    return answers;
  }

  end(client: Uuid, keys: Keys, checksums: readonly (bigint | undefined)[], tenantName: string): Status[] {
    checkUuid('client', client);
    checkKeys(keys);
    checkChecksums(checksums, keys.length);
    const now = this.#books.begin();
    return this.#each(keys, tenantName, (id, i) => {
      const put = this.#books.puts.get(id);
      // An end that is repeated, because its answer was lost, has succeeded.
      if (!put) return this.#books.isOwner(id, client) ? STATUS.ok : STATUS.notOwner;
      if (put.client !== client) return STATUS.notOwner;
      this.#books.completePut(id, put, checksums[i], now);
      return STATUS.ok;
    });
  }

  revoke(client: Uuid, keys: Keys, tenantName: string): Status[] {
    checkUuid('client', client);
    checkKeys(keys);
    const now = this.#books.begin();
    return this.#each(keys, tenantName, (id) => {
      const put = this.#books.puts.get(id);
      if (!put) return STATUS.invalidWrite;
      if (put.client !== client) return STATUS.notOwner;
      this.#books.revokePut(id, put, now, now);
      return STATUS.ok;
    });
  }

  #each(keys: Keys, tenantName: string, action: (id: number, i: number) => Status): Status[] {
    const { tenants } = this.#books;
    const tenant = tenants.find(tenantName);
    if (!tenant) return Array(keys.length).fill(tenants.closed ? STATUS.unknownTenant : STATUS.notFound);
    const { table } = this.#books;
    const ids = new Float64Array(keys.length);
    table.findMany(tenant.number, keys, ids);
    const answers = new Array<Status>(ids.length);
    for (let i = 0; i < ids.length; i++) {
      // A key that is named twice: the first action may have struck the object out.
      const id = ids[i] > 0 && table.has(ids[i]) ? this.#books.settle(ids[i]) : 0;
      answers[i] = id === 0 ? STATUS.notFound : action(id, i);
    }
    return answers;
  }

  #startPut(start: Start): Outcome<Replica[]> {
    const { puts, options } = this.#books;
    const id = this.#books.find(start.tenant.number, start.key);
    if (id !== 0) {
      const put = puts.get(id);
      if (!put && this.#books.isAbsent(id)) {
        // Nobody is told of it, and perhaps nobody ever will be: who wants it there puts it.
        const hopeless = this.#hopeless(start);
        if (hopeless) return hopeless;
        this.#books.drop(id, 'removed', start.now);
        return this.#startNew(start);
      }
      if (!put || this.#books.isReadable(id) || start.now - put.startedAt < options.putDiscardMs) return EXISTS;
      const hopeless = this.#hopeless(start);
      if (hopeless) return hopeless;
      this.#books.discardPut(id, put, start.now);
    }
    return this.#startNew(start);
  }

  #startUpsert(start: Start): Outcome<Replica[]> {
    const { table, puts, groups, options } = this.#books;
    const { tenant, group, now, wanted } = start;
    let id = this.#books.find(tenant.number, start.key);
    if (id === 0) return this.#startNew(start);
    if ((table.flags(id) & BUSY) !== 0) return refuse(STATUS.hasTask, 'the object is being copied or moved');
    if (group !== undefined && !groups.is(table.group(id), tenant.number, group)) {
      return refuse(STATUS.invalidParams, 'an object keeps its group as long as it exists');
    }
    const put = puts.get(id);
    if (put) {
      // The end of the first could not be told from that of the second.
      if (put.client === start.client && now - put.startedAt < options.putDiscardMs) {
        return refuse(STATUS.notReady, 'this client is writing the object already');
      }
      const hopeless = this.#hopeless(start);
      if (hopeless) return hopeless;
      this.#books.discardPut(id, put, now);
      if (!table.has(id)) return this.#startNew(start);
    }
    const pinUntil = wanted.softPin === 'disable' ? 0 : table.pinUntil(id);
    const hardPin = wanted.hardPin || (table.flags(id) & HARD_PINNED) !== 0;
    const handlesNow = this.#books.handles(id);
    const stays = handlesNow.every((handle) => {
      const { isLeaving, isAbsent } = this.#books.segments.of(handle);
      return !isLeaving && !isAbsent;
    });
    const isWritten = (table.flags(id) & OFFLOADING) !== 0;
    if (
      table.size(id) === start.size &&
      handlesNow.length > 0 &&
      stays &&
      !isWritten &&
      !this.#books.isLeased(id, now)
    ) {
      const again = describe(start, handlesNow, pinUntil, hardPin);
      this.#books.startInPlace(id, tenant, again);
      return this.#started(again);
    }
    const handles = this.#place(start);
    if (!Array.isArray(handles)) return handles;
    const replacing = describe(start, handles, pinUntil, hardPin);
    // Making room may have cost the very object.
    id = this.#books.find(tenant.number, start.key);
    if (id === 0) return this.#enter(start, replacing);
    this.#books.startPut(id, tenant, replacing);
    return this.#started(replacing);
  }

  #startNew(start: Start): Outcome<Replica[]> {
    const handles = this.#place(start);
    if (!Array.isArray(handles)) return handles;
    return this.#enter(start, describe(start, handles, 0, start.wanted.hardPin));
  }

  /** Why no eviction could make room: then nobody's object and nobody's put is given up for it. */
  #hopeless({ tenant, size, wanted }: Start): Outcome<never> | undefined {
    const bytes = size * wanted.preferences.copies;
    if (bytes > tenant.quotaBytes) return overQuota(tenant, bytes);
    const { largest } = this.#books.segments;
    return size > largest ? tooLarge(size, largest) : undefined;
  }

  #place(start: Start): number[] | Outcome<never> {
    const hopeless = this.#hopeless(start);
    if (hopeless) return hopeless;
    const { tenant, size, wanted, now } = start;
    const bytes = size * wanted.preferences.copies;
    if (!this.#eviction.placeInQuota(tenant, bytes, now)) return overQuota(tenant, bytes);
    const handles = this.#eviction.place(size, wanted.preferences, now);
    return handles.length > 0 ? handles : noRoom(size);
  }

  /** A new record; where the table is full, one run of eviction makes room in it. */
  #enter({ tenant, key, group, now }: Start, put: Put): Outcome<Replica[]> {
    const enter = () => this.#books.startObject(tenant, key, group, put) !== 0;
    if (enter() || (this.#makeRoom(now) && enter())) return this.#started(put);
    this.#books.keptBack.free(put.handles, now, now);
    return refuse(STATUS.noSpace, 'the table of objects is full, and nothing may go');
  }

  /** Room in the table: what is on disks alone is forgotten, or something is evicted. */
  #makeRoom(now: number): boolean {
    return this.#books.diskCopies.forgetOldest(now) || this.#eviction.run(now) > 0;
  }

  #started({ handles, size }: Put): Outcome<Replica[]> {
    return { ok: true, value: this.#books.replicas(handles, size, 'processing') };
  }
}

function overQuota({ name, quotaBytes }: Tenant, bytes: number) {
  return refuse(
    STATUS.quotaExceeded,
    `${bytes} bytes more would pass the quota of ${quotaBytes} bytes of tenant ${name}`,
  );
}

function tooLarge(size: number, largest: number) {
  if (largest === 0) return refuse(STATUS.noSpace, 'nobody lends memory: there is no segment');
  return refuse(STATUS.noSpace, `${size} bytes are more than the largest segment has, ${largest}`);
}

function noRoom(size: number) {
  return refuse(STATUS.noSpace, `no segment has ${size} bytes, and nothing may go`);
}

function describe({ client, size, now, wanted }: Start, handles: number[], pinUntil: number, hardPin: boolean): Put {
  const pinForMs = wanted.softPin === 'enable' ? wanted.softPinTtlMs : 0;
  return { client, startedAt: now, handles, size, pinUntil, pinForMs, hardPin };
}

function resolveConfig(
  config: ReplicateConfig | undefined,
  keys: number,
  { options, segments }: Books,
  client: Uuid,
): Wanted {
  const c = checkOptions('config', config);
  const softPinTtlMs = c.softPinTtlMs ?? options.softPinTtlMs;
  const preferredSegments = c.preferredSegments ?? [];
  if (!Array.isArray(preferredSegments)) {
    throw errors.invalidArgument('config.preferredSegments', preferredSegments, 'an array of names');
  }
  const { groups } = c;
  if (typeof groups !== 'string' && groups !== undefined) {
    if (!Array.isArray(groups) || groups.length !== keys) {
      throw errors.invalidArgument('config.groups', groups, `a name, or an array of ${keys} names, one a key`);
    }
    for (const [i, name] of groups.entries()) string(`config.groups[${i}]`, name);
  }
  return {
    preferences: {
      copies: integer('config.replicas', c.replicas ?? 1, 1, MAX_COPIES),
      preferredSegments: preferredSegments.map((name, i) => string(`config.preferredSegments[${i}]`, name)),
      hostId: string('config.hostId', c.hostId || segments.hostOf(client)),
      preferSameNode: boolean('config.preferSameNode', c.preferSameNode ?? false),
    },
    softPin: oneOf('config.softPin', c.softPin ?? 'preserve', ['preserve', 'enable', 'disable'] as const),
    softPinTtlMs: integer('config.softPinTtlMs', softPinTtlMs, 1, options.maxSoftPinTtlMs),
    hardPin: boolean('config.hardPin', c.hardPin ?? false),
    group: (i) => (typeof groups === 'string' ? groups : groups?.[i]) || undefined,
  };
}

function checkChecksums(checksums: unknown, keys: number): void {
  if (!Array.isArray(checksums) || checksums.length !== keys) {
    throw errors.invalidArgument('checksums', checksums, `an array of ${keys} checksums, one a key`);
  }
  for (const [i, checksum] of checksums.entries()) {
    if (checksum === undefined) continue;
    if (typeof checksum !== 'bigint' || checksum < 0n || checksum >= 2n ** 64n) {
      throw errors.invalidArgument(`checksums[${i}]`, checksum, 'a bigint from 0 to 2^64 - 1, or undefined');
    }
  }
}
