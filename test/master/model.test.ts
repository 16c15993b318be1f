// Random operations on the service and on a slow model of it (model.ts), which must agree after each: in every answer, in
// what is served and where it lies, in usage, quotas and counters. MOONCAKE_TEST_OPERATIONS sets how many (default 20,000),
// MOONCAKE_TEST_SEED where they begin; a failure prints the seed of its run.
import { Keys, MetadataService, type ReplicateConfig, type SegmentInfo } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Model, type Place, type Settings, type Wish } from './model.js';
import { ALICE, BOB, segment, uuid } from './support.js';

const OPERATIONS = Number(process.env.MOONCAKE_TEST_OPERATIONS ?? 20_000);
const SEED = Number(process.env.MOONCAKE_TEST_SEED ?? 1);
/** Operations on one service. */
const RUN = 1500;
const UNIT = 64;

const KEYS = Array.from({ length: 14 }, (_, i) => `k${i}`);
const CLIENTS = [ALICE, BOB];
const GROUPS = ['', '', '', 'g1', 'g2'];
const PATTERNS = ['k1', '^k[0-4]$', '.', 'nothing', '(k|1)+3$'];

function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Run {
  readonly #uniform: () => number;
  readonly #settings: Settings;
  readonly #tenants: string[];
  readonly #model: Model;
  readonly #service: MetadataService;
  #segments = 0;
  readonly #unmounted: { info: SegmentInfo; client: string }[] = [];

  constructor(seed: number) {
    this.#uniform = mulberry(seed);
    const quotas = this.#chance(0.5)
      ? new Map([
          ['default', this.#pick([Infinity, 60 * UNIT])],
          ['t1', this.#pick([15 * UNIT, 40 * UNIT])],
        ])
      : undefined;
    this.#tenants = quotas ? ['default', 'default', 't1', 't1', 'nobody'] : ['default', 'default', 't1'];
    this.#settings = {
      leaseTtlMs: this.#pick([0, 50, 400]),
      evictionHighWatermark: this.#pick([0.5, 0.9, 1]),
      evictionRatio: this.#pick([0.01, 0.05, 0.5]),
      allowEvictSoftPinned: this.#chance(0.7),
      putDiscardMs: 300,
      putReleaseMs: 1000,
      alignment: this.#pick([1, UNIT]),
      quotas,
    };
    this.#model = new Model(this.#settings);
    const { quotas: _, ...options } = this.#settings;
    const policies = quotas && new Map([...quotas].map(([name, bytes]) => [name, quota(bytes)]));
    this.#service = new MetadataService({
      ...options,
      tenants: policies,
      allocationStrategy: this.#pick(['random', 'free_ratio_first', 'local_first']),
      shards: this.#pick([1, 1, 2]),
      now: () => this.#model.now,
      random: this.#uniform,
    });
    this.#mount();
  }

  async step(): Promise<string> {
    const operations: [number, string, () => void | Promise<void>][] = [
      [20, 'put', () => this.#start(false)],
      [12, 'upsert', () => this.#start(true)],
      [22, 'end', () => this.#end()],
      [5, 'revoke', () => this.#revoke()],
      [16, 'read', () => this.#read()],
      [16, 'lookup', () => this.#lookup()],
      [8, 'remove', () => this.#remove()],
      [1, 'remove many', () => this.#removeMany()],
      [12, 'time', () => this.#pass()],
      [2, 'tick', () => this.#tick()],
      [1, 'mount', () => this.#mount()],
      [0.8, 'unmount', () => this.#unmount()],
    ];
    let at = this.#uniform() * operations.reduce((sum, [weight]) => sum + weight, 0);
    const [, name, run] = operations.find(([weight]) => (at -= weight) < 0) ?? operations[0];
    await run();
    this.#check();
    return name;
  }

  // Operations.

  #start(upsert: boolean): void {
    const [client, tenant, keys] = [this.#pick(CLIENTS), this.#pick(this.#tenants), this.#keys()];
    const same = (key: string) => (this.#chance(0.5) ? this.#model.entry(tenant, key)?.content?.size : undefined);
    const sizes = Float64Array.from(keys, (key) => same(key) ?? this.#size());
    const config: ReplicateConfig = {
      replicas: this.#pick([1, 1, 1, 2, 3]),
      softPin: this.#pick(['preserve', 'preserve', 'enable', 'disable']),
      softPinTtlMs: this.#pick([50, 500]),
      hardPin: this.#chance(0.03),
      preferredSegments: this.#chance(0.2) ? ['segment-1'] : [],
      groups: keys.map(() => this.#pick(GROUPS)),
    };
    const call = upsert ? this.#service.upsertStart : this.#service.putStart;
    const outcomes = call.call(this.#service, client, Keys.from(keys), sizes, config, tenant);
    this.#model.begin();
    for (const [i, key] of keys.entries()) {
      const wish = { ...config, size: sizes[i], copies: config.replicas, group: config.groups?.[i] } as Wish;
      const expected = this.#model.start(client, tenant, key, wish, upsert);
      const outcome = outcomes[i];
      if (!outcome.ok) {
        assert.equal(expected, { status: outcome.status }, `${key}: ${outcome.why}`);
        continue;
      }
      const places = outcome.value.map(({ segment, offset, size }) => ({ segment, offset, size }));
      if ('same' in expected) assert.equal(places, expected.same);
      else {
        assert.equal(expected, { copies: places.length }, key);
        this.#model.placed(tenant, key, places);
      }
    }
  }

  #end(): void {
    const [client, tenant, keys] = this.#target();
    const checksums = keys.map((_, i) => (this.#chance(0.5) ? BigInt(i) << 60n : undefined));
    const statuses = this.#service.putEnd(client, Keys.from(keys), checksums, tenant);
    this.#model.begin();
    assert.equal(
      statuses,
      keys.map((key, i) => this.#model.end(client, tenant, key, checksums[i])),
    );
  }

  #revoke(): void {
    const [client, tenant, keys] = this.#target();
    const statuses = this.#service.putRevoke(client, Keys.from(keys), tenant);
    this.#model.begin();
    assert.equal(
      statuses,
      keys.map((key) => this.#model.revoke(client, tenant, key)),
    );
  }

  #read(): void {
    const [tenant, keys] = [this.#pick(this.#tenants), this.#keys()];
    const outcomes = this.#service.getReplicas(Keys.from(keys), tenant);
    this.#model.begin();
    for (const [i, expected] of this.#model.read(tenant, keys).entries()) {
      const outcome = outcomes[i];
      if (typeof expected === 'number') {
        assert.equal(outcome.ok ? 0 : outcome.status, expected);
        continue;
      }
      assert.ok(outcome.ok, keys[i]);
      assert.is(outcome.ok && outcome.value.leaseMs, this.#settings.leaseTtlMs);
    }
  }

  #lookup(): void {
    const [tenant, keys] = [this.#pick(this.#tenants), this.#keys()];
    const answers = this.#service.exist(Keys.from(keys), tenant);
    this.#model.begin();
    assert.equal([...answers], this.#model.lookup(tenant, keys));
  }

  #remove(): void {
    const [tenant, keys, force] = [this.#pick(this.#tenants), this.#keys(), this.#chance(0.4)];
    const statuses = this.#service.remove(Keys.from(keys), force, tenant);
    this.#model.begin();
    assert.equal(
      statuses,
      keys.map((key) => this.#model.remove(tenant, key, force)),
    );
  }

  async #removeMany(): Promise<void> {
    const [tenant, force, pattern] = [this.#pick(['default', 't1']), this.#chance(0.3), this.#pick(PATTERNS)];
    const all = this.#chance(0.2);
    const count = all
      ? await this.#service.removeAll(force, tenant)
      : await this.#service.removeByRegex(pattern, force, tenant);
    this.#model.begin();
    const regex = new RegExp(pattern);
    const wanted = KEYS.filter((key) => (all || regex.test(key)) && this.#model.entry(tenant, key));
    assert.is(count, wanted.filter((key) => this.#model.remove(tenant, key, force) === 0).length);
  }

  #pass(): void {
    this.#model.now += Math.floor(this.#uniform() ** 3 * this.#pick([10, 100, 100, 1500]));
  }

  #tick(): void {
    this.#service.tick();
    this.#model.begin();
    this.#model.tick();
  }

  #mount(): void {
    if (this.#model.segments.size === 4) return;
    const length = UNIT * Math.ceil(10 + this.#uniform() * 30);
    // The memory that went last may come back as it was.
    const back = this.#chance(0.6) ? this.#unmounted.pop() : undefined;
    const { info, client } = back ?? { info: segment(++this.#segments, length), client: this.#pick(CLIENTS) };
    assert.is(this.#service.mountSegment(info, client), 0);
    this.#model.begin();
    this.#model.mount(info.id, client, info.length);
  }

  #unmount(): void {
    const mounted = [...this.#model.segments];
    if (mounted.length === 0) return;
    const [id, { client }] = this.#pick(mounted);
    const [{ client: _, usedBytes: __, capacityBytes: ___, objects: ____, ...info }] = this.#service
      .segments()
      .filter((one) => one.id === id);
    const other = this.#pick(CLIENTS);
    assert.is(this.#service.unmountSegment(id, other), other === client ? 0 : -601);
    this.#model.begin();
    if (other === client) {
      this.#unmounted.push({ info, client });
      this.#model.unmount(id);
    }
    assert.is(this.#service.unmountSegment(uuid(1), other), 0, 'of an unknown segment');
  }

  // After every operation.

  #check(): void {
    const model = this.#model;
    model.begin();
    for (const tenant of new Set(this.#tenants)) {
      const outcomes = this.#service.peek(ALL, tenant);
      for (const [i, key] of KEYS.entries()) {
        const content = model.entry(tenant, key)?.content;
        const outcome = outcomes[i];
        if (!outcome.ok) {
          assert.ok(!content, `${tenant}/${key} should be there`);
          assert.is(outcome.why, model.miss(tenant, key));
          continue;
        }
        const { replicas, size, checksum } = outcome.value;
        const served: { places: Place[]; size: number; checksum: bigint | undefined } = {
          places: replicas.map(({ segment, offset, size }) => ({ segment, offset, size })),
          size,
          checksum,
        };
        assert.equal(served, content && { places: content.places, size: content.size, checksum: content.checksum });
      }
    }
    const { metadataBytes, tenants, keptBackBytes, disks: _, ...stats } = this.#service.stats();
    const entries = [...model.entries.values()];
    assert.equal(stats, {
      ...model.counts,
      objects: model.contents().length,
      incomplete: entries.filter(({ put }) => put).length,
      usedBytes: model.used,
      capacityBytes: model.capacity,
    });
    const up = (size: number) => Math.ceil(size / this.#settings.alignment) * this.#settings.alignment;
    assert.is(
      keptBackBytes,
      model.kept.reduce((sum, { place }) => sum + up(place.size), 0),
    );
    for (const [tenant, figures] of Object.entries(tenants)) {
      assert.is(figures.usedBytes, model.charged(tenant), `bytes of ${tenant}`);
      assert.is(figures.objects, model.contents(tenant).length);
    }
    for (const { id, usedBytes, objects } of this.#service.segments()) {
      const places = model.places.filter(({ segment }) => segment === id);
      assert.is(
        usedBytes,
        places.reduce((sum, { size }) => sum + up(size), 0),
      );
      assert.is(objects, places.length - model.kept.filter(({ place }) => place.segment === id).length);
    }
  }

  // Choices.

  #chance(share: number): boolean {
    return this.#uniform() < share;
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#uniform() * from.length)];
  }

  #keys(): string[] {
    return Array.from({ length: this.#pick([1, 1, 2, 4]) }, () => this.#pick(KEYS));
  }

  #size(): number {
    if (this.#chance(0.02)) return this.#pick([0, -1, 1.5, Number.NaN, Infinity, 10_000 * UNIT]);
    const units = 1 + Math.floor(this.#uniform() ** 2 * 12);
    // With an alignment of one unit any size takes whole units.
    return units * UNIT - (this.#settings.alignment === UNIT ? Math.floor(this.#uniform() * UNIT) : 0);
  }

  /** Mostly what is being written, by its writer. */
  #target(): [client: string, tenant: string, keys: string[]] {
    const writing = [...this.#model.entries.values()].filter(({ put }) => put);
    if (writing.length === 0 || this.#chance(0.1)) {
      return [this.#pick(CLIENTS), this.#pick(this.#tenants), this.#keys()];
    }
    const { tenant, put } = this.#pick(writing);
    const same = writing.filter((entry) => entry.tenant === tenant && entry.put?.client === put?.client);
    return [put?.client ?? ALICE, tenant, same.slice(0, this.#pick([1, 2, 4])).map(({ key }) => key)];
  }
}

const ALL = Keys.from(KEYS);
const quota = (bytes: number) => (bytes === Infinity ? {} : { quotaBytes: bytes });

test(`${OPERATIONS} random operations agree with the model`, async () => {
  for (let done = 0, seed = SEED; done < OPERATIONS; done += RUN, seed++) {
    const run = new Run(seed);
    for (let at = 0; at < Math.min(RUN, OPERATIONS - done); at++) {
      try {
        await run.step();
      } catch (error) {
        const where = `operation ${at} of the run with MOONCAKE_TEST_SEED=${seed}`;
        throw Object.assign(error as Error, { message: `${where}: ${(error as Error).message}` });
      }
    }
  }
});

test.run();
