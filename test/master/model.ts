/**
 * The metadata service as docs/store.md describes it, written to be read: Maps and arrays that are searched from end to
 * end. It decides everything but where copies are placed, which it takes from the service and checks; whether a size fits
 * it finds from the gaps. It shares no code with the service.
 */
import * as assert from 'uvu/assert';

export interface Place {
  segment: string;
  offset: number;
  size: number;
}

export interface Settings {
  leaseTtlMs: number;
  evictionHighWatermark: number;
  evictionRatio: number;
  allowEvictSoftPinned: boolean;
  putDiscardMs: number;
  putReleaseMs: number;
  alignment: number;
  /** Undefined: all are served. */
  quotas: Map<string, number> | undefined;
}

interface Put {
  client: string;
  startedAt: number;
  size: number;
  places: Place[];
  pinUntil: number;
  pinForMs: number;
  hardPin: boolean;
}

interface Content {
  size: number;
  places: Place[];
  checksum: bigint | undefined;
  owner: string;
  hardPin: boolean;
  pinUntil: number;
  leaseUntil: number;
  used: number;
}

interface Entry {
  tenant: string;
  key: string;
  group: string;
  content: Content | undefined;
  put: Put | undefined;
  lookupUntil: number;
}

export interface Wish {
  size: number;
  copies: number;
  group: string;
  softPin: 'preserve' | 'enable' | 'disable';
  softPinTtlMs: number;
  hardPin: boolean;
}

export type Expected = { status: number } | { copies: number } | { same: Place[] };

interface Kept {
  place: Place;
  until: number;
}

export class Model {
  now = 0;
  readonly entries = new Map<string, Entry>();
  readonly segments = new Map<string, { client: string; length: number }>();
  kept: Kept[] = [];
  /** What somebody may still use of segments that are not mounted. */
  #departed: Kept[] = [];
  readonly counts = {
    evictedObjects: 0,
    evictedBytes: 0,
    evictions: 0,
    fruitlessEvictions: 0,
    discardedPuts: 0,
    lookups: 0,
    hits: 0,
    misses: { absent: 0, evicted: 0, removed: 0, incomplete: 0, 'unknown-tenant': 0 },
  };
  readonly #settings: Settings;
  readonly #losses = new Map<string, 'evicted' | 'removed'>();
  /** Members of groups in the order in which they joined. */
  readonly #groups = new Map<string, Set<Entry>>();
  #uses = 0;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  // What calls do.

  begin(): void {
    this.kept = this.kept.filter(({ until }) => until > this.now);
    for (const entry of [...this.entries.values()]) {
      if (entry.put && this.now - entry.put.startedAt >= this.#settings.putReleaseMs) this.#discard(entry);
    }
  }

  /** What a start must answer; where that is copies, `placed` has to be told where they are. */
  start(client: string, tenant: string, key: string, wish: Wish, upsert: boolean): Expected {
    if (!this.#serves(tenant)) return { status: -1701 };
    if (!(Number.isInteger(wish.size) && wish.size > 0)) return { status: -600 };
    const entry = this.entry(tenant, key);
    if (!upsert) {
      if (entry?.content) return { status: -705 };
      if (entry?.put) {
        const hopeless = this.#hopeless(tenant, wish);
        if (this.now - entry.put.startedAt < this.#settings.putDiscardMs) return { status: -705 };
        if (hopeless) return hopeless;
        this.#discard(entry);
      }
      return this.#begin(client, tenant, key, wish, 0, wish.hardPin);
    }
    if (!entry) return this.#begin(client, tenant, key, wish, 0, wish.hardPin);
    if (wish.group !== '' && wish.group !== entry.group) return { status: -600 };
    if (entry.put) {
      const young = this.now - entry.put.startedAt < this.#settings.putDiscardMs;
      if (entry.put.client === client && young) return { status: -703 };
      const hopeless = this.#hopeless(tenant, wish);
      if (hopeless) return hopeless;
      this.#discard(entry);
    }
    const { content } = entry;
    if (!content) return this.#begin(client, tenant, key, wish, 0, wish.hardPin);
    const pinUntil = wish.softPin === 'disable' ? 0 : content.pinUntil;
    const hardPin = wish.hardPin || content.hardPin;
    if (content.size === wish.size && content.leaseUntil <= this.now && entry.lookupUntil <= this.now) {
      entry.put = this.#newPut(client, wish, pinUntil, hardPin);
      entry.put.places = content.places;
      this.#losses.set(name(tenant, key), 'removed');
      entry.content = undefined;
      return { same: entry.put.places };
    }
    return this.#begin(client, tenant, key, wish, pinUntil, hardPin);
  }

  placed(tenant: string, key: string, places: Place[]): void {
    const put = this.entry(tenant, key)?.put;
    assert.ok(put);
    for (const place of places) this.#checkFree(place);
    assert.is(new Set(places.map(({ segment }) => segment)).size, places.length, 'copies on different segments');
    put.places = places;
  }

  end(client: string, tenant: string, key: string, checksum: bigint | undefined): number {
    if (!this.#serves(tenant)) return -1701;
    const entry = this.entry(tenant, key);
    if (!entry) return -704;
    const { put, content } = entry;
    if (!put) return content?.owner === client ? 0 : -601;
    if (put.client !== client) return -601;
    if (content) this.#free(content.places, content.leaseUntil);
    entry.content = {
      size: put.size,
      places: put.places,
      checksum,
      owner: client,
      hardPin: put.hardPin,
      pinUntil: put.pinForMs > 0 ? this.now + put.pinForMs : put.pinUntil,
      leaseUntil: 0,
      used: ++this.#uses,
    };
    entry.put = undefined;
    return 0;
  }

  revoke(client: string, tenant: string, key: string): number {
    if (!this.#serves(tenant)) return -1701;
    const entry = this.entry(tenant, key);
    if (!entry) return -704;
    if (!entry.put) return -700;
    if (entry.put.client !== client) return -601;
    this.#lose(entry);
    return 0;
  }

  /** Contents by key, undefined where there is none, after the read; or -1701. */
  read(tenant: string, keys: string[]): (Content | number)[] {
    return this.#look(tenant, keys, true);
  }

  lookup(tenant: string, keys: string[]): number[] {
    return this.#look(tenant, keys, false).map((found) =>
      typeof found === 'object' ? 1 : found === -1701 ? -1701 : 0,
    );
  }

  remove(tenant: string, key: string, force: boolean): number {
    if (!this.#serves(tenant)) return -1701;
    const entry = this.entry(tenant, key);
    if (!entry) return -704;
    if (!force && entry.put) return -703;
    if (!force && Math.max(entry.content?.leaseUntil ?? 0, entry.lookupUntil) > this.now) return -706;
    if (entry.content) this.#drop(entry, 'removed');
    if (entry.put) this.#discard(entry);
    return 0;
  }

  mount(segment: string, client: string, length: number): void {
    this.segments.set(segment, { client, length });
    this.kept.push(...this.#departed.filter(({ place, until }) => place.segment === segment && until > this.now));
    this.#departed = this.#departed.filter(({ place }) => place.segment !== segment);
  }

  unmount(segment: string): void {
    const staying = (places: Place[]) => places.filter((place) => place.segment !== segment);
    const claim = (places: Place[], until: number) => places.map((place) => ({ place, until }));
    const claims = [...this.entries.values()].flatMap(({ put, content }) => [
      ...claim(put?.places ?? [], (put?.startedAt ?? 0) + this.#settings.putReleaseMs),
      ...claim(content?.places ?? [], content?.leaseUntil ?? 0),
    ]);
    this.#departed.push(...[...claims, ...this.kept].filter(({ place }) => place.segment === segment));
    this.segments.delete(segment);
    this.kept = this.kept.filter(({ place }) => place.segment !== segment);
    for (const entry of [...this.entries.values()]) {
      if (entry.put) {
        entry.put.places = staying(entry.put.places);
        if (entry.put.places.length === 0) this.#lose(entry);
      }
      if (entry.content) {
        entry.content.places = staying(entry.content.places);
        if (entry.content.places.length === 0) {
          this.#losses.set(name(entry.tenant, entry.key), 'removed');
          entry.content = undefined;
        }
      }
      this.#strike(entry);
    }
  }

  tick(): void {
    if (this.capacity > 0 && this.used / this.capacity > this.#settings.evictionHighWatermark) this.#evict();
  }

  // What there is.

  entry(tenant: string, key: string): Entry | undefined {
    return this.entries.get(name(tenant, key));
  }

  miss(tenant: string, key: string): 'absent' | 'evicted' | 'removed' | 'incomplete' | 'unknown-tenant' {
    if (!this.#serves(tenant)) return 'unknown-tenant';
    return this.entry(tenant, key) ? 'incomplete' : (this.#losses.get(name(tenant, key)) ?? 'absent');
  }

  get capacity(): number {
    return [...this.segments.values()].reduce((sum, { length }) => sum + this.#down(length), 0);
  }

  get places(): Place[] {
    const owned = [...this.entries.values()].flatMap(({ put, content }) => [
      ...(put?.places ?? []),
      ...(content?.places ?? []),
    ]);
    return [...owned, ...this.kept.map(({ place }) => place)];
  }

  get used(): number {
    return this.places.reduce((sum, { size }) => sum + this.#up(size), 0);
  }

  charged(tenant: string): number {
    let bytes = 0;
    for (const { tenant: owner, put, content } of this.entries.values()) {
      if (owner !== tenant) continue;
      bytes += (put ? put.size * put.places.length : 0) + (content ? content.size * content.places.length : 0);
    }
    return bytes;
  }

  contents(tenant?: string): Entry[] {
    return [...this.entries.values()].filter((entry) => entry.content && (!tenant || entry.tenant === tenant));
  }

  // Rules.

  #serves(tenant: string): boolean {
    return this.#settings.quotas === undefined || this.#settings.quotas.has(tenant);
  }

  #begin(client: string, tenant: string, key: string, wish: Wish, pinUntil: number, hardPin: boolean): Expected {
    const quota = this.#settings.quotas?.get(tenant) ?? Infinity;
    const bytes = wish.size * wish.copies;
    const hopeless = this.#hopeless(tenant, wish);
    if (hopeless) return hopeless;
    while (this.charged(tenant) + bytes > quota) if (this.#evict(tenant) === 0) return { status: -1700 };
    if ((this.used + bytes) / this.capacity > this.#settings.evictionHighWatermark) this.#evict();
    let fits = this.#fits(wish.size);
    while (fits === 0 && this.#evict() > 0) fits = this.#fits(wish.size);
    if (fits === 0) return { status: -200 };
    let entry = this.entry(tenant, key);
    if (!entry) {
      entry = { tenant, key, group: wish.group, content: undefined, put: undefined, lookupUntil: 0 };
      this.entries.set(name(tenant, key), entry);
      if (wish.group !== '') {
        const group = name(tenant, wish.group);
        this.#groups.set(group, (this.#groups.get(group) ?? new Set()).add(entry));
      }
    }
    entry.put = this.#newPut(client, wish, pinUntil, hardPin);
    return { copies: Math.min(fits, wish.copies) };
  }

  /** What can never fit costs nobody anything. */
  #hopeless(tenant: string, { size, copies }: Wish): { status: number } | undefined {
    if (size * copies > (this.#settings.quotas?.get(tenant) ?? Infinity)) return { status: -1700 };
    const fits = [...this.segments.values()].some(({ length }) => this.#down(length) >= size);
    return fits ? undefined : { status: -200 };
  }

  #newPut(client: string, wish: Wish, pinUntil: number, hardPin: boolean): Put {
    const pinForMs = wish.softPin === 'enable' ? wish.softPinTtlMs : 0;
    return { client, startedAt: this.now, size: wish.size, places: [], pinUntil, pinForMs, hardPin };
  }

  /** Segments with a gap for so many bytes. */
  #fits(size: number): number {
    let count = 0;
    for (const [id, { length }] of this.segments) {
      const taken = this.places.filter(({ segment }) => segment === id).sort((a, b) => a.offset - b.offset);
      let at = 0;
      let largest = 0;
      for (const place of taken) {
        largest = Math.max(largest, place.offset - at);
        at = place.offset + this.#up(place.size);
      }
      if (Math.max(largest, this.#down(length) - at) >= this.#up(size)) count++;
    }
    return count;
  }

  #checkFree({ segment, offset, size }: Place): void {
    const mounted = this.segments.get(segment);
    assert.ok(mounted && offset >= 0 && offset + size <= mounted.length, 'a place in a mounted segment');
    for (const other of this.places) {
      if (other.segment !== segment) continue;
      const apart = offset >= other.offset + this.#up(other.size) || other.offset >= offset + this.#up(size);
      assert.ok(apart, `${offset}+${size} overlaps ${other.offset}+${other.size}, which is in use or kept back`);
    }
  }

  #grade({ content, lookupUntil }: Entry): number {
    if (!content || content.hardPin || content.leaseUntil > this.now) return 3;
    if (content.pinUntil > this.now) return 2;
    return lookupUntil > this.now ? 1 : 0;
  }

  #evict(tenant?: string): number {
    const wanted = Math.ceil(this.contents(tenant).length * this.#settings.evictionRatio);
    let gone = 0;
    for (let grade = 0; grade <= (this.#settings.allowEvictSoftPinned ? 2 : 1) && gone === 0; grade++) {
      while (gone < wanted) {
        const candidates = this.contents(tenant).filter((entry) => this.#grade(entry) === grade);
        if (candidates.length === 0) break;
        const use = (entry: Entry) => entry.content?.used ?? 0;
        const oldest = candidates.reduce((a, b) => (use(b) < use(a) ? b : a));
        for (const member of oldest.group === '' ? [oldest] : [...this.#membersOf(oldest)]) {
          if (!member.content || this.#grade(member) > grade) continue;
          this.counts.evictedObjects++;
          this.counts.evictedBytes += member.content.size;
          this.#drop(member, 'evicted');
          gone++;
        }
      }
    }
    this.counts.evictions++;
    if (gone === 0) this.counts.fruitlessEvictions++;
    return gone;
  }

  #look(tenant: string, keys: string[], read: boolean): (Content | number)[] {
    this.counts.lookups += keys.length;
    const found = keys.map((key) => this.entry(tenant, key));
    const groups: Entry[] = [];
    const answers = keys.map((key, i) => {
      const entry = found[i];
      if (!entry?.content) {
        this.counts.misses[this.miss(tenant, key)]++;
        return this.#serves(tenant) ? (entry ? -703 : -704) : -1701;
      }
      this.counts.hits++;
      this.#protect(entry, read);
      if (entry.group !== '' && !groups.some(({ group }) => group === entry.group)) groups.push(entry);
      return entry.content;
    });
    for (const entry of groups) for (const member of this.#membersOf(entry)) this.#protect(member, read);
    return answers;
  }

  #protect(entry: Entry, read: boolean): void {
    if (!entry.content) return;
    const until = this.now + this.#settings.leaseTtlMs;
    if (!read) {
      if (entry.lookupUntil <= this.now) entry.lookupUntil = until;
      return;
    }
    entry.content.leaseUntil = until;
    entry.content.used = ++this.#uses;
  }

  #membersOf(entry: Entry): Set<Entry> {
    return this.#groups.get(name(entry.tenant, entry.group)) ?? new Set();
  }

  #drop(entry: Entry, reason: 'evicted' | 'removed'): void {
    assert.ok(entry.content);
    this.#losses.set(name(entry.tenant, entry.key), reason);
    this.#free(entry.content.places, entry.content.leaseUntil);
    entry.content = undefined;
    this.#strike(entry);
  }

  #discard(entry: Entry): void {
    assert.ok(entry.put);
    this.counts.discardedPuts++;
    this.#free(entry.put.places, entry.put.startedAt + this.#settings.putReleaseMs);
    this.#lose(entry);
  }

  /** A put came to nothing: its client has no end to repeat. */
  #lose(entry: Entry): void {
    if (entry.content && entry.content.owner === entry.put?.client) entry.content.owner = '';
    entry.put = undefined;
    this.#strike(entry);
  }

  #free(places: Place[], until: number): void {
    if (until > this.now) this.kept.push(...places.map((place) => ({ place, until })));
  }

  #strike(entry: Entry): void {
    if (entry.content || entry.put) return;
    this.entries.delete(name(entry.tenant, entry.key));
    if (entry.group === '') return;
    const members = this.#membersOf(entry);
    members.delete(entry);
    if (members.size === 0) this.#groups.delete(name(entry.tenant, entry.group));
  }

  #up(size: number): number {
    return Math.ceil(size / this.#settings.alignment) * this.#settings.alignment;
  }

  #down(length: number): number {
    return length - (length % this.#settings.alignment);
  }
}

const name = (tenant: string, key: string) => `${tenant}\n${key}`;
