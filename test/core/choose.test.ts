import * as fc from 'fast-check';
import {
  type ChooseOptions,
  chooseInstance,
  type HeldPrefix,
  InstanceChooser,
  type MooncakeError,
  NO_OVERLAP,
  type Overlaps,
  type Policy,
  type TierCredits,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rejects } from '../support/rejects.js';

/** A match that says what it is told: for each instance its prefix on gpu, cpu, disk and on any mixture. */
function matchOf(lengths: number[][], approximate = false): Overlaps {
  const entries = lengths.map(([gpu, cpu, disk, any = Math.max(gpu, cpu, disk)], instance) => {
    return { instance, name: `gpu-${instance}`, gpu, cpu, disk, any };
  });
  return { approximate, entries: () => entries.filter(({ any }) => any > 0) };
}

const gpu = (...lengths: number[]) => lengths.map((length) => [length, 0, 0]);

test('best takes the longest prefix, half only a prefix of more than half', () => {
  const match = matchOf(gpu(0, 5, 3));
  assert.equal(chooseInstance(match, { blocks: 10, instances: 3, policy: 'best' }), {
    instance: 1,
    state: 'exact',
    overlap: 5,
    cursor: 2,
  });
  // 5 of 10 is not more than half, so it is instance 0's turn and nothing is known of what it holds.
  assert.equal(chooseInstance(match, { blocks: 10, instances: 3, policy: 'half' }), {
    instance: 0,
    state: 'fallback',
    overlap: 0,
    cursor: 1,
  });
  assert.is(chooseInstance(match, { blocks: 9, instances: 3, policy: 'half' }).instance, 1);
});

test('equal instances take turns', () => {
  const chooser = new InstanceChooser(4);
  const turns = Array.from({ length: 6 }, () => chooser.choose(NO_OVERLAP, { blocks: 3 }).instance);
  assert.equal(turns, [0, 1, 2, 3, 0, 1]);
  const tied = Array.from({ length: 3 }, () => chooser.choose(matchOf(gpu(0, 3, 0, 3)), { blocks: 3 }).instance);
  assert.equal(tied, [3, 1, 3]);
});

test('under cost a busy holder loses to an idle instance once the queue outweighs the prefix', () => {
  const match = matchOf(gpu(80, 0));
  const chosen = (options: object) => chooseInstance(match, { blocks: 100, instances: 2, ...options });
  assert.is(chosen({ load: [79, 0] }).instance, 0);
  assert.equal(chosen({ load: [81, 0] }), { instance: 1, state: 'fallback', overlap: 0, cursor: 0 });
  assert.is(chosen({ load: [81, 0], prefillWeight: 2 }).instance, 0);
  assert.is(chosen({ load: [1, 0], prefillWeight: 0 }).instance, 1);
});

test('a block counts by the best tier that holds it', () => {
  // 10 on gpu; 10 on gpu and 10 more on disk (2.5); 14 on cpu (10.5); 9 on gpu and 4 more on a mixture (3).
  const match = matchOf([
    [10, 0, 0],
    [10, 4, 20],
    [0, 14, 0],
    [9, 0, 0, 13],
  ]);
  const chosen = (credits?: TierCredits) =>
    chooseInstance(match, { blocks: 20, instances: 4, policy: 'best', credits }).instance;
  assert.is(chosen(), 1);
  assert.is(chosen({ disk: 0 }), 3);
  assert.is(chosen({ disk: 0, cpu: 1 }), 2);
  assert.is(chosen({ disk: 0, cpu: 0 }), 0);
  assert.is(chooseInstance(match, { blocks: 20, instances: 4, policy: 'best' }).overlap, 20);
});

test('instances by name are found in the index whatever their ids, and may be missing from it', () => {
  const match = matchOf(gpu(9, 0, 8));
  const chooser = new InstanceChooser(['new', 'gpu-2', 'gpu-1']);
  assert.equal(chooser.choose(match, { blocks: 10 }), { instance: 1, state: 'exact', overlap: 8, cursor: 2 });
  assert.is(new InstanceChooser(2).choose(matchOf(gpu(0, 0, 9)), { blocks: 9 }).state, 'fallback');
});

test('an instance with load Infinity is never chosen, and none at all is an error', () => {
  const { POSITIVE_INFINITY: out } = Number;
  for (const policy of ['half', 'best', 'cost'] as const) {
    const chosen = (load: number[]) => chooseInstance(matchOf(gpu(4, 3, 0)), { blocks: 4, instances: 3, policy, load });
    assert.is(chosen([out, 0, 0]).instance, 1);
    try {
      chosen([out, out, out]);
      assert.unreachable();
    } catch (error) {
      assert.is((error as MooncakeError).code, 'ERR_NO_INSTANCE');
    }
  }
});

test('the state says when the overlap may be wrong', () => {
  const state = (approximate: boolean, stale?: boolean) =>
    chooseInstance(matchOf(gpu(2, 0), approximate), { blocks: 2, instances: 2, stale }).state;
  assert.equal([state(false), state(true), state(false, true)], ['exact', 'degraded', 'degraded']);
});

test('every choice agrees with the rule written out', () => {
  const scenario = fc.integer({ min: 1, max: 12 }).chain((instances) => {
    const each = { minLength: instances, maxLength: instances };
    return fc.record({
      instances: fc.constant(instances),
      blocks: fc.integer({ min: 0, max: 40 }),
      lengths: fc.array(fc.integer({ min: 0, max: 40 }), each),
      load: fc.option(fc.array(fc.integer({ min: 0, max: 30 }), each), { nil: undefined }),
      cursor: fc.integer({ min: 0, max: instances - 1 }),
      policy: fc.constantFrom<Policy>('half', 'best', 'cost'),
    });
  });
  fc.assert(
    fc.property(scenario, ({ instances, blocks, lengths, load, cursor, policy }) => {
      const held = lengths.map((length) => Math.min(length, blocks));
      const best = Math.max(...held);
      const ids = held.map((_, instance) => instance);
      const everyone = best === 0 || (policy === 'half' && 2 * best <= blocks);
      const candidates = policy === 'cost' || everyone ? ids : ids.filter((instance) => held[instance] === best);
      const cost = (instance: number) =>
        (policy === 'cost' ? blocks - held[instance] : 0) + (load ? load[instance] : 0);
      const lowest = Math.min(...candidates.map(cost));
      const winners = candidates.filter((instance) => cost(instance) === lowest);
      const expected = winners.find((instance) => instance >= cursor) ?? winners[0];
      const choice = chooseInstance(matchOf(gpu(...held)), { blocks, instances, load, cursor, policy });
      assert.is(choice.instance, expected);
      assert.is(choice.overlap, held[expected]);
      assert.is(choice.cursor, (expected + 1) % instances);
    }),
    { numRuns: 500 },
  );
});

test('bad input is refused by name', () => {
  const match = matchOf(gpu(1));
  const bad = (options: unknown, argument: string) =>
    rejects(argument, () => chooseInstance(match, options as ChooseOptions));
  bad(undefined, 'instances');
  bad(7, 'options');
  bad({ instances: 0 }, 'instances');
  bad({ instances: 65537 }, 'instances');
  bad({ instances: [] }, 'instances.length');
  bad({ instances: ['a', 3] }, 'instances[1]');
  bad({ instances: ['a', 'b', 'a'] }, 'instances[2]');
  bad({ instances: 2 }, 'blocks');
  bad({ instances: 2, blocks: -1 }, 'blocks');
  bad({ instances: 2, cursor: 2 }, 'cursor');
  bad({ instances: 2, policy: 'fastest' }, 'policy');
  bad({ instances: 2, blocks: 1, load: [1] }, 'load');
  bad({ instances: 2, blocks: 1, load: [1, Number.NaN] }, 'load[1]');
  bad({ instances: 2, blocks: 1, load: [-1, 0] }, 'load[0]');
  bad({ instances: 2, blocks: 1, load: ['3', 0] }, 'load[0]');
  bad({ instances: 2, credits: { cpu: 1.5 } }, 'credits.cpu');
  bad({ instances: 2, prefillWeight: Number.POSITIVE_INFINITY }, 'prefillWeight');
  for (const not of [undefined, null, 3, [], {}]) {
    rejects('match', () => chooseInstance(not as unknown as Overlaps, { blocks: 1, instances: 1 }));
  }
  for (const odd of [
    { instance: -1 },
    { instance: Number.NaN },
    { instance: 0.5 },
    { any: Number.NaN },
    { gpu: 'x' },
  ]) {
    const held = { instance: 0, gpu: 0, cpu: 0, disk: 0, any: 1, ...odd } as HeldPrefix;
    rejects('match', () => chooseInstance({ approximate: false, entries: () => [held] }, { blocks: 1, instances: 2 }));
  }
  rejects('instances', () => new InstanceChooser(0));
  rejects('policy', () => new InstanceChooser(2, { policy: 'x' as Policy }));
  rejects('load', () => new InstanceChooser(2).choose(match, { blocks: 1, load: [0] }));
});

test.run();
