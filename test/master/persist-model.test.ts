/**
 * Random calls, snapshots while they go on, and crashes at any moment: whatever the folder is then, the service that
 * opens it has every object that was acknowledged and not given up, as it was, and nothing that was given up; and never
 * do two allocations overlap, those of readers and writers of the time before included. The model is a Map and a list.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkApart, contents, crash, newFolder, type Opened, open } from './persist-support.js';
import { ALICE, BOB, segment } from './support.js';

const LENGTH = 4096;
const LEASE_MS = 100;
const SETTINGS = { leaseTtlMs: LEASE_MS, putReleaseMs: 3000, putDiscardMs: 1000 };
const OWNERS = [ALICE, BOB, ALICE];
const ROUNDS = Number(process.env.PERSIST_ROUNDS ?? 12);

/** Xorshift, so that a failure can be run again. */
function randomFrom(seed: number) {
  let state = seed;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  return { below: (n: number) => Math.floor(next() * n), chance: (p: number) => next() < p };
}

type Random = ReturnType<typeof randomFrom>;
interface Busy {
  segment: string;
  offset: number;
  size: number;
  until: number;
}

/** What must be there: acknowledged content by key; and what may be touched by others until then. */
class Model {
  readonly content = new Map<string, { size: number; checksum: bigint }>();
  readonly puts = new Map<string, { size: number; places: Busy[]; client: string; startedAt: number }>();
  busy: Busy[] = [];
}

/** Who started a put that did not end may go on writing until its space is released. */
function stillWritten({ places, startedAt }: { places: Busy[]; startedAt: number }): Busy[] {
  return places.map((place) => ({ ...place, until: startedAt + SETTINGS.putReleaseMs }));
}

function mountAll({ service }: Opened): void {
  for (const [i, owner] of OWNERS.entries()) assert.is(service.mountSegment(segment(i + 1, LENGTH), owner), 0);
}

/** One call, and what it says of the model. */
function act(one: Opened, model: Model, random: Random): void {
  const { service, clock } = one;
  const key = `${random.chance(0.5) ? 'model@tp_rank:0@' : ''}${random
    .below(60)
    .toString(16)
    .padStart(random.chance(0.5) ? 4 : 3, '0')}`;
  const keys = one.keys(key);
  const client = random.chance(0.5) ? ALICE : BOB;
  const put = model.puts.get(key);
  const forgetPut = () => {
    if (put) model.busy.push(...stillWritten(put));
    model.puts.delete(key);
  };
  switch (random.below(10)) {
    case 0:
    case 1:
    case 2:
    case 3: {
      const upsert = random.chance(0.3);
      const size = 1 + random.below(random.chance(0.1) ? 400 : 60);
      const config = { replicas: 1 + random.below(3), hardPin: true, groups: random.chance(0.2) ? key.slice(-1) : '' };
      const [outcome] = upsert
        ? service.upsertStart(client, keys, Float64Array.of(size), { ...config, groups: '' })
        : service.putStart(client, keys, Float64Array.of(size), config);
      if (!outcome.ok) return;
      if (put) forgetPut();
      const places = outcome.value.map(({ segment, offset }) => ({
        segment,
        offset,
        size,
        until: Number.POSITIVE_INFINITY,
      }));
      model.busy = model.busy.filter(({ until }) => until > clock.now);
      for (const place of places) {
        for (const other of model.busy) {
          const apart =
            other.segment !== place.segment ||
            other.offset >= place.offset + size ||
            place.offset >= other.offset + other.size;
          assert.ok(apart, `${key} was given bytes that others may touch`);
        }
      }
      model.puts.set(key, { size, places, client, startedAt: clock.now });
      if (!service.peek(keys)[0].ok) model.content.delete(key);
      return;
    }
    case 4:
    case 5:
    case 6: {
      const checksum = BigInt(random.below(2 ** 30));
      if (!put || service.putEnd(put.client, keys, [checksum])[0] !== 0) return;
      model.puts.delete(key);
      model.content.set(key, { size: put.size, checksum });
      return;
    }
    case 7:
      if (put && service.putRevoke(put.client, keys)[0] === 0) model.puts.delete(key);
      return;
    case 8: {
      const [found] = service.getReplicas(keys);
      if (!found.ok) return;
      for (const { segment, offset, size } of found.value.replicas) {
        model.busy.push({ segment, offset, size, until: clock.now + LEASE_MS });
      }
      return;
    }
    default:
      if (service.remove(keys, random.chance(0.5))[0] !== 0) return;
      model.content.delete(key);
      if (put) forgetPut();
  }
}

async function check(one: Opened, model: Model): Promise<void> {
  const all = await contents(one);
  assert.equal([...all.keys()].sort(), [...model.content.keys()].map((key) => `default ${key}`).sort());
  for (const [key, { size, checksum }] of model.content) {
    const found = all.get(`default ${key}`) as { size: number; checksum: bigint };
    assert.is(found.size, size, key);
    assert.is(found.checksum, checksum, key);
  }
  checkApart(all);
}

async function run(seed: number): Promise<void> {
  const random = randomFrom(seed);
  const clock = { now: 1_700_000_000_000 };
  const model = new Model();
  let one = await open(newFolder(), clock, SETTINGS);
  mountAll(one);
  for (let round = 0; round < ROUNDS; round++) {
    for (let step = random.below(30); step >= 0; step--) {
      const snapshot = random.chance(0.2) ? one.persistence.snapshot() : undefined;
      for (let i = random.below(40); i >= 0; i--) {
        act(one, model, random);
        if (random.chance(0.02)) clock.now += random.below(400);
        if (snapshot && random.chance(0.2)) await new Promise((resolve) => setImmediate(resolve));
      }
      // Acknowledged is what has settled; before that, a crash may or may not lose it.
      await one.persistence.settled();
      if (random.chance(0.5)) await snapshot;
      else snapshot?.catch(() => {});
    }
    await check(one, model);
    const copy = crash(one);
    await one.persistence.close();
    clock.now += random.below(200);
    one = await open(copy, clock, SETTINGS);
    assert.equal(
      one.events.map(({ what }) => what).filter((what) => what === 'data-damaged'),
      [],
    );
    mountAll(one);
    await check(one, model);
    // Puts that had not ended are gone; who started them may go on writing.
    for (const put of model.puts.values()) model.busy.push(...stillWritten(put));
    model.puts.clear();
  }
  await one.persistence.close();
}

for (const seed of [1, 7, 4711, 99991]) {
  test(`acknowledged, and not given up: there; seed ${seed}`, () => run(seed));
}

test.run();
