/**
 * Random calls of several clients, which vanish at any point, come back, copy and move, while time jumps: nothing that was
 * acknowledged and not evicted is lost or wrong, and nobody is given memory that somebody else may be using.
 */
import fc from 'fast-check';
import { Keys } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Copier, DISCARD_MS, type Process, RELEASE_MS, World, type Writer } from './crash-world.js';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const SIZES = [1, 64, 65, 300, 640, 1500];
const PAUSES = [1, 10, 30, 50, 90, 99, 100, 101, 500, DISCARD_MS, 4999, 5000];

/** One step: what is done, and numbers that choose how. */
type Step = [what: number, x: number, y: number, z: number];

class Run {
  readonly #world: World;
  readonly #live: Process[] = [];

  constructor(seed: number) {
    let state = seed;
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    this.#world = new World(random);
    for (let i = 0; i < 3; i++) {
      this.#live.push(this.#world.begin());
      assert.is(this.#world.mount(this.#live[i], 2, i), 0);
    }
  }

  take([what, x, y, z]: Step): void {
    const { contents, puts, copies } = this.#world;
    const process = this.#live[y % this.#live.length];
    const any = KEYS[x % KEYS.length];
    const one = (keys: ReadonlyMap<string, unknown>) => [...keys.keys()][x % keys.size] ?? any;
    const acts = [
      () => this.#start(any, process, SIZES[z % SIZES.length], 1 + (z % 3), false),
      () => this.#start(any, process, SIZES[z % SIZES.length], 1 + (z % 2), false),
      () => this.#start(any, process, SIZES[z % SIZES.length], 1 + (z % 3), true),
      () => this.#end(one(puts), z % 5 === 0),
      () => this.#end(one(puts), false),
      () => this.#end(one(puts), false),
      () => this.#world.read(one(contents)),
      () => this.#world.read(any),
      () => this.#remove(one(contents), z % 2 === 0),
      () => this.#remove(one(copies), true),
      () => this.#copy(one(contents), process, z),
      () => this.#copy(one(contents), process, z),
      () => this.#copy(one(contents), process, z),
      () => this.#endCopy(one(copies), z % 4 === 0),
      () => this.#endCopy(one(copies), false),
      () => this.#endStray(z),
      () => this.#vanish(y, z % 2 === 0),
      () => this.#mount(process, z),
      () => this.#mount(process, z),
      () => this.#unmount(z),
      () => this.#world.pass(PAUSES[z % PAUSES.length]),
      () => this.#world.pass(1),
      () => this.#setClockBack(z),
      () => this.#world.writeLate(() => (z >>> 3) % 2 === 0),
      () => this.#world.writeLate(() => true),
    ];
    acts[what % acts.length]();
    this.#world.check();
  }

  #start(key: string, { client }: Process, size: number, copies: number, upsert: boolean): void {
    const { service, contents, puts, now } = this.#world;
    const [call, one] = [upsert ? service.upsertStart : service.putStart, Keys.from([key])];
    const [put, content] = [puts.get(key), contents.get(key)];
    const [outcome] = call.call(service, client, one, Float64Array.of(size), { replicas: copies }, 'default');
    if (!upsert && content) {
      assert.not(outcome.ok, 'it exists');
      return;
    }
    if (upsert && this.#world.copies.has(key)) {
      assert.is(outcome.ok ? 0 : outcome.status, -708);
      return;
    }
    if (put && (!upsert || put.client === client) && now - put.startedAt < DISCARD_MS) {
      assert.not(outcome.ok);
      return;
    }
    if (!outcome.ok) {
      // What is preempted is given up before room is made.
      if (put && service.stats().incomplete < puts.size) puts.delete(key);
      return;
    }
    const [first] = this.#world.placesOf(outcome.value);
    const inPlace = content?.places.some((place) => isSame(place, first));
    if (inPlace) assert.not(this.#world.isLeased(key), 'somebody is reading what is written over');
    this.#world.noteEvicted(inPlace ? key : undefined);
    if (inPlace) this.#world.lose(key);
    const writer = this.#world.given({ key, client, size }, outcome.value);
    puts.set(key, writer);
  }

  #end(key: string, revoke: boolean): void {
    const { service, puts, contents } = this.#world;
    const put = puts.get(key);
    if (!put) return;
    put.isDone = true;
    puts.delete(key);
    if (revoke) {
      assert.equal(service.putRevoke(put.client, Keys.from([key])), [0]);
      return;
    }
    this.#world.write(put, put.paint);
    assert.equal(service.putEnd(put.client, Keys.from([key]), [undefined]), [0]);
    contents.set(key, { paint: put.paint, size: put.size, places: put.places });
  }

  #remove(key: string, force: boolean): void {
    const { service, contents, puts, copies } = this.#world;
    const isBusy = puts.has(key) || copies.has(key);
    const [status] = service.remove(Keys.from([key]), force);
    if (!contents.has(key) && !puts.has(key)) {
      assert.is(status, -704);
      return;
    }
    if (force) assert.is(status, 0);
    else if (isBusy || this.#world.isLeased(key)) assert.ok(status === -703 || status === -706);
    if (status !== 0) return;
    puts.delete(key);
    this.#world.lose(key);
  }

  #copy(key: string, { client }: Process, z: number): void {
    const { service, contents, puts, copies, segments } = this.#world;
    const names = [...segments.values()].map(({ info }) => info.name);
    const content = contents.get(key);
    if (names.length === 0) return;
    const from = content ? segments.get(content.places[z % content.places.length].segment)!.info.name : names[0];
    const targets = names.filter((_, i) => ((z >> i) & 1) === 0);
    const kind = z % 3 === 0 ? 'move' : 'copy';
    const wanted = kind === 'move' ? [names[(z >> 2) % names.length]] : targets;
    const bytes = new TextEncoder().encode(key);
    const plan = service.copies.start({ kind, client, key: bytes, tenant: 'default', source: from, targets: wanted });
    if (!plan.ok) return;
    assert.ok(content && !puts.has(key) && !copies.has(key), 'only what is readable and not being changed');
    const [source] = this.#world.placesOf([plan.value.source]);
    assert.ok(content.places.some(({ segment, from }) => segment === source.segment && from === source.from));
    const { paint, size } = content;
    const writer = this.#world.given({ key, client, size, paint }, plan.value.targets);
    const copier: Copier = Object.assign(writer, { kind, source } as const);
    copies.set(key, copier);
  }

  #endCopy(key: string, revoke: boolean): void {
    const { service, copies, contents } = this.#world;
    const copier = copies.get(key);
    if (!copier) return;
    const { client, kind, source, given, places } = copier;
    const call = { kind, client, key: new TextEncoder().encode(key), tenant: 'default' };
    copier.isDone = true;
    copies.delete(key);
    if (revoke) {
      assert.is(service.copies.revoke(call), 0);
      return;
    }
    // It writes what it finds in its source, whatever that is.
    const original = source ?? copier.given[0];
    this.#world.write(copier, original?.process.memory[original.from] ?? -1);
    const status = service.copies.end(call);
    const content = contents.get(key)!;
    const isWhole = places.length === given.length;
    if (!source) {
      assert.is(status, -712, 'the source is gone');
      return;
    }
    content.places = [...content.places, ...places];
    if (kind === 'copy') {
      assert.is(status, isWhole ? 0 : -712);
      return;
    }
    const isElsewhere = content.places.length > 1;
    assert.is(status, isWhole && isElsewhere ? 0 : -712);
    if (status === 0) content.places = content.places.filter((one) => !isSame(one, source));
  }

  /** The end of a copy that came to nothing: it must not be taken for that of the client's next one. */
  #endStray(z: number): void {
    const { service, copies, writers, now } = this.#world;
    const isStray = (writer: Writer): writer is Copier =>
      'kind' in writer && !writer.isDone && now - writer.startedAt < RELEASE_MS && copies.get(writer.key) !== writer;
    const strays = writers.filter(isStray);
    const stray = strays[z % strays.length];
    if (!stray) return;
    stray.isDone = true;
    const { kind, client, key } = stray;
    const status = service.copies.end({ kind, client, key: new TextEncoder().encode(key), tenant: 'default' });
    assert.ok(status < 0, 'it was ended before');
  }

  /** A client is taken for lost: its process has ended and another one begins, or it was only cut off. */
  #vanish(index: number, forGood: boolean): void {
    const { service, segments, copies } = this.#world;
    const at = index % this.#live.length;
    const process = this.#live[at];
    for (const [id, segment] of segments) if (segment.process === process) this.#world.unmount(id);
    service.copies.forget(process.client);
    for (const [key, copier] of copies) if (copier.client === process.client) copies.delete(key);
    if (forGood) this.#live[at] = this.#world.begin();
  }

  #mount(process: Process, z: number): void {
    this.#world.mount(process, z % 3, 100 * this.#world.processes.indexOf(process) + (z % 7));
  }

  #unmount(z: number): void {
    const ids = [...this.#world.segments.keys()];
    if (ids.length > 0) this.#world.unmount(ids[z % ids.length]);
  }

  #setClockBack(z: number): void {
    const { now } = this.#world;
    this.#world.now = now - z;
    this.#world.service.tick();
    this.#world.now = now;
  }
}

const isSame = (a: { segment: string; from: number }, b: { segment: string; from: number }) =>
  a.segment === b.segment && a.from === b.from;

test('nothing is lost, wrong or handed out twice, whoever vanishes', () => {
  const number = fc.nat(2 ** 16);
  const step = fc.tuple(number, number, number, number);
  const runs = fc.property(fc.nat(), fc.array(step, { minLength: 1, maxLength: 250, size: 'max' }), (seed, steps) => {
    const run = new Run(seed);
    for (const one of steps) run.take(one);
  });
  fc.assert(runs, { numRuns: 250 });
});

test.run();
