// Blocks that wait outside the table: how many do, that all are found once they are asked for by key, and that what
// notes them bears any churn.
import { PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

/** Chains of so many random keys, different in each call. */
function maker(): (length: number) => BigUint64Array {
  let next = 1n;
  return (length) =>
    BigUint64Array.from({ length }, () => {
      next++;
      return BigInt.asUintN(64, (next * 0x9e3779b97f4a7c15n) ^ (next << 17n));
    });
}

function filled(instances: number): PrefixIndex {
  const index = new PrefixIndex({ keyWidth: 8 });
  for (let i = 0; i < instances; i++) index.addInstance(`engine-${i}`);
  return index;
}

test('once asked for a block by its key, few wait', () => {
  const [plain, asked] = [filled(1), filled(1)];
  assert.not(asked.has(1n));
  const chain = maker();
  const chains = Array.from({ length: 400 }, () => chain(1000));
  for (const hashes of chains) for (const index of [plain, asked]) assert.is(index.insert(0, hashes), 1000);
  // 65,536 wait, and of what the others take in the table 9 bytes a block are the least.
  assert.ok(asked.stats().bytesUsed - plain.stats().bytesUsed >= (400_000 - 65_536) * 9);
  for (const index of [plain, asked]) {
    assert.is(index.check(), 0);
    for (const hashes of chains) assert.ok(index.has(hashes[500]));
    for (const hashes of chains) assert.is(index.remove(0, hashes.subarray(500)), 500);
    for (const hashes of chains) assert.is(index.match(hashes).length(0), 500);
    assert.is(index.check(), 0);
  }
});

test('one insertion of more blocks than may wait', () => {
  const index = filled(1);
  index.has(1n);
  const hashes = maker()(70_000);
  assert.is(index.insert(0, hashes), hashes.length);
  assert.is(index.match(hashes).length(0), hashes.length);
  assert.is(index.check(), 0);
  for (let k = 0; k < hashes.length; k += 97) assert.ok(index.has(hashes[k]));
  assert.is(index.check(), 0);
});

test('waiting blocks that are freed and used again without a call by key', () => {
  for (const asked of [false, true]) {
    const index = filled(8);
    if (asked) index.has(1n);
    const chain = maker();
    const held: BigUint64Array[][] = Array.from({ length: 8 }, () => []);
    for (let round = 0; round < 4000; round++) {
      const instance = (round * 5) % 8;
      const hashes = chain(1 + ((round * 37) % 150));
      index.insert(instance, hashes);
      held[instance].push(hashes);
      if (round % 3 === 0) index.touch(hashes.subarray(0, 40));
      if (round % 100 === 99) {
        const cleared = (round * 7) % 8;
        index.clear(cleared);
        held[cleared] = [];
      }
      if (round % 500 === 499) assert.is(index.check(), 0);
    }
    const all = held.flatMap((chains, instance) => chains.map((hashes) => [instance, hashes] as const));
    assert.ok(all.length > 100);
    for (const [instance, hashes] of all) assert.is(index.match(hashes).length(instance), hashes.length);
    for (const [, hashes] of all) assert.ok(index.has(hashes[hashes.length >> 1]));
    for (const [instance, hashes] of all) assert.is(index.remove(instance, hashes), hashes.length);
    assert.is(index.check(), 0);
    assert.is(index.stats().blocks, 0);
  }
});

test('more runs wait than there is room to note', () => {
  for (const asked of [false, true]) {
    const index = filled(1);
    if (asked) index.has(1n);
    const chain = maker();
    // Cleared from the oldest on, they are used again from the newest on: no run's ids follow those of the one before.
    for (let i = 0; i < 1500; i++) index.insert(0, chain(40));
    index.clear(0);
    const chains = Array.from({ length: 1500 }, () => chain(40));
    for (const hashes of chains) assert.is(index.insert(0, hashes), 40);
    assert.is(index.check(), 0);
    for (const hashes of chains) assert.is(index.match(hashes).length(0), 40);
    for (const hashes of chains) assert.ok(index.has(hashes[39]));
    assert.is(index.check(), 0);
    for (const hashes of chains) assert.is(index.remove(0, hashes.subarray(20)), 20);
    assert.equal([index.check(), index.stats().blocks], [0, 30_000]);
  }
});

test.run();
