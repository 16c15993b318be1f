// The index against a naive model: random operations over tiny alphabets of blocks, so that chains branch, overlap and
// lose blocks in the middle all the time. Answers, counts and the whole order of eviction must agree after every step.
// Worlds differ in how long runs get, and in whether hashes stand under two parents. What asks for a block by its key
// alone (has, continue, remove) comes in the middle of everything else, so that it finds runs that are not in the table
// yet, whole, cut and joined.
import fc from 'fast-check';
import { type KeyWidth, PrefixIndex, type Tier } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Holder, hashesOf, hashOf, Model } from '../support/prefix-model.js';

const TIERS: Tier[] = ['gpu', 'cpu', 'disk'];

interface World {
  keyWidth: KeyWidth;
  shared: boolean;
  instances: number;
  groups: number;
  letters: number;
  depth: number;
  /** So many blocks for each letter of a path. */
  stretch: number;
  /** Blocks of two sizes, one for each group. */
  sizes: boolean;
}

const world = fc.record<World>({
  keyWidth: fc.constantFrom<KeyWidth>(8, 16, 32),
  shared: fc.boolean(),
  instances: fc.integer({ min: 1, max: 6 }),
  groups: fc.integer({ min: 1, max: 2 }),
  letters: fc.integer({ min: 1, max: 3 }),
  depth: fc.integer({ min: 1, max: 14 }),
  stretch: fc.constantFrom(1, 1, 1, 16),
  sizes: fc.constantFrom(false, false, true),
});

const ACTIONS = [
  'insert',
  'insert',
  'continue',
  'remove',
  'removeSome',
  'has',
  'touch',
  'match',
  'order',
  'clear',
  'reload',
] as const;

const operation = fc.record({
  action: fc.constantFrom(...ACTIONS),
  instance: fc.nat(),
  tier: fc.constantFrom(...TIERS),
  group: fc.nat(),
  path: fc.array(fc.nat(), { maxLength: 14 }),
  number: fc.nat(),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function hashesOfPaths(paths: string[], width: KeyWidth): Uint8Array {
  const bytes = new Uint8Array(paths.length * width);
  paths.forEach((path, i) => void bytes.set(hashOf(path, width), i * width));
  return bytes;
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

class Pair {
  readonly model = new Model();
  index: PrefixIndex;

  constructor(readonly world: World) {
    const { keyWidth, shared } = world;
    this.index = new PrefixIndex({ keyWidth, shared });
    for (let i = 0; i < world.instances; i++) this.index.addInstance(`engine-${i}`);
  }

  run({ action, number, ...from }: Operation): void {
    const { index, model } = this;
    const { keyWidth, instances, groups, letters, depth, stretch, sizes } = this.world;
    const holder: Holder = { instance: from.instance % instances, tier: from.tier, group: from.group % groups };
    const { instance, tier, group } = holder;
    const alphabet = sizes && group > 0 ? 'ABC' : 'abc';
    const path = from.path
      .slice(0, stretch > 1 ? Math.min(depth, 5) : depth)
      .map((letter) => alphabet[letter % letters].repeat(stretch))
      .join('')
      .slice(from.instance % stretch, -(number % stretch) || undefined);
    const hashes = hashesOf(path, keyWidth);
    switch (action) {
      case 'insert':
        assert.is(index.insert(instance, hashes, { tier, group }), model.insert(holder, path, 0));
        break;
      case 'continue': {
        const at = number % (path.length + 1);
        const rest = hashesOf(path, keyWidth, at);
        const before = path.slice(0, at);
        const place = at > 0 ? model.parent(holder, before) : '';
        // What follows a block of the other size would be a chain that no engine has.
        if (place !== undefined && place !== before) break;
        const parent = at > 0 ? hashOf(before, keyWidth) : undefined;
        const expected = place === undefined ? 0 : model.insert(holder, path, at);
        assert.is(index.insert(instance, rest, { tier, group, parent }), expected);
        break;
      }
      case 'has':
        if (path) assert.is(index.has(hashOf(path, keyWidth)), model.places(path).length > 0);
        break;
      case 'remove':
      case 'removeSome': {
        const ends = Array.from(path, (_, i) => path.slice(0, i + 1));
        const paths = action === 'remove' ? ends.slice(number % 3) : ends.filter((_, i) => (number >> i) & 1);
        if (number % 5 === 0) paths.reverse();
        const removed = index.remove(instance, hashesOfPaths(paths, keyWidth), { tier, group });
        assert.is(removed, model.remove(holder, paths));
        break;
      }
      case 'touch':
        assert.is(index.touch(hashes), model.touch(path));
        break;
      case 'match':
        this.#match(path, hashes, group);
        break;
      case 'order':
        this.#order(number % 3, holder);
        break;
      case 'clear':
        this.#clear(number % 12, holder);
        break;
      case 'reload': {
        const snapshot = index.snapshot();
        this.index = PrefixIndex.load(snapshot, { shared: !index.shared });
        assert.equal(this.index.snapshot(), snapshot);
      }
    }
    const { blocks, held } = this.index.stats();
    assert.is(blocks, model.blocks.size);
    assert.is(held, model.held);
  }

  #match(path: string, hashes: Uint8Array, group: number): void {
    const { index, model, world } = this;
    const found = index.match(hashes, { group });
    const inGroup = (key: string) => key.endsWith(` ${group}`);
    assert.is(found.matched, model.leading(path, inGroup));
    const into = new Uint32Array(world.instances);
    assert.is(index.matchInto(hashes, into, group), found.matched);
    for (let i = 0; i < world.instances; i++) {
      for (const tier of TIERS)
        assert.is(
          found.length(i, tier),
          model.leading(path, (key) => key === `${i} ${tier} ${group}`),
        );
      const any = model.leading(path, (key) => key.startsWith(`${i} `) && inGroup(key));
      assert.is(found.length(`engine-${i}`), any);
      assert.is(into[i], any);
    }
  }

  #order(which: number, holder: Holder): void {
    const { instance, tier, group } = holder;
    const options = [{}, { instance }, holder][which];
    const matches = [
      () => true,
      (key: string) => key.startsWith(`${instance} `),
      (key: string) => key === `${instance} ${tier} ${group}`,
    ];
    const paths = this.model.evictionOrder(matches[which]);
    const { keyWidth } = this.world;
    assert.is(hex(this.index.evictionOrder(options).bytes), hex(hashesOfPaths(paths, keyWidth)));
    const limited = this.index.evictionOrder({ ...options, limit: 3 });
    assert.is(hex(limited.bytes), hex(hashesOfPaths(paths.slice(0, 3), keyWidth)));
  }

  // Rarely, or nothing would ever grow.
  #clear(which: number, { instance, tier, group }: Holder): void {
    const { index, model } = this;
    const mine = (holder: Holder) => holder.instance === instance;
    if (which === 0) assert.is(index.clear(instance), model.clear(mine));
    if (which === 1)
      assert.is(
        index.clear(instance, { tier }),
        model.clear((h) => mine(h) && h.tier === tier),
      );
    if (which === 2)
      assert.is(
        index.clear(instance, { group }),
        model.clear((h) => mine(h) && h.group === group),
      );
  }
}

test('random operations agree with a naive model, and every invariant holds', () => {
  let done = 0;
  const operations = fc.array(operation, { minLength: 200, maxLength: 600, size: 'max' });
  fc.assert(
    fc.property(world, operations, (chosen, list) => {
      const pair = new Pair(chosen);
      list.forEach((one, i) => {
        pair.run(one);
        if (i % 8 === 0) assert.is(pair.index.check(), 0);
      });
      assert.is(pair.index.check(), 0);
      done += list.length;
    }),
    { numRuns: 300 },
  );
  assert.ok(done >= 100_000, `${done} operations`);
});

test.run();
