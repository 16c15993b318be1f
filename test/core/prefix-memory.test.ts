// Memory: bytes for a block in the published works, scaled down, and that what is freed is used again.
import { PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

/** A repeatable generator of 64-bit numbers (splitmix64 on its own output). */
function* numbers(seed: bigint): Generator<bigint> {
  for (let x = seed; ; ) {
    x = BigInt.asUintN(64, x + 0x9e3779b97f4a7c15n);
    let z = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    yield z ^ (z >> 31n);
  }
}

function filled(keyWidth: 8 | 32, chains: number, length: number, holders: number): PrefixIndex {
  const index = new PrefixIndex({ keyWidth });
  for (let i = 0; i < 1024; i++) index.addInstance(`engine-${i}`);
  const random = numbers(1n);
  const words = keyWidth / 8;
  for (let i = 0; i < chains; i++) {
    const hashes = BigUint64Array.from({ length: length * words }, () => random.next().value);
    for (let holder = 0; holder < holders; holder++) {
      index.insert((i * 7 + holder * 13) % 1024, keyWidth === 8 ? hashes : new Uint8Array(hashes.buffer));
    }
  }
  return index;
}

const perBlock = (index: PrefixIndex) => index.stats().bytes / index.stats().blocks;

test('8-byte keys: at most 64 bytes a block in chains of 1,000, at most 40 in long ones', () => {
  const synth = filled(8, 300, 1000, 1);
  assert.ok(perBlock(synth) <= 64, `${perBlock(synth)} bytes a block`);
  const long = filled(8, 30, 10_000, 1);
  assert.ok(perBlock(long) <= 40, `${perBlock(long)} bytes a block`);
});

test('chains that are only inserted and matched take little of the table', () => {
  const index = filled(8, 300, 1000, 1);
  assert.ok(perBlock(index) <= 20, `${perBlock(index)} bytes a block`);
  // Asked for by its key alone, a block in the middle of a run is found as ever.
  const middle = BigUint64Array.from({ length: 500 }, (_, i) => BigInt(i + 1) << 20n);
  index.insert(3, middle);
  assert.ok(index.has(middle[250]));
  assert.is(index.remove(3, middle.subarray(250, 251)), 1);
  assert.is(index.match(middle).length(3), 250);
  assert.ok(perBlock(index) <= 40, `${perBlock(index)} bytes a block`);
});

test('32-byte keys with two holders: at most 107 bytes a block, 1 GiB for ten million, also where every block is a chain of its own', () => {
  for (const length of [1, 20, 500]) {
    const index = filled(32, 150_000 / length, length, 2);
    assert.is(index.stats().held, 300_000);
    assert.ok(perBlock(index) <= 107, `${perBlock(index)} bytes a block in chains of ${length}`);
  }
});

test('what is freed is used again: a churning index does not grow', () => {
  const index = new PrefixIndex({ keyWidth: 8 });
  for (let i = 0; i < 40; i++) index.addInstance(`engine-${i}`);
  const random = numbers(2n);
  const shared = BigUint64Array.from({ length: 50 }, () => random.next().value);
  let after = 0;
  for (let round = 0; round < 12; round++) {
    const kept: [instance: number, hashes: BigUint64Array][] = [];
    for (let i = 0; i < 400; i++) {
      const hashes = BigUint64Array.from({ length: 60 + (i % 40) }, () => random.next().value);
      hashes.set(shared.subarray(0, i % 50));
      index.insert(i % 40, hashes);
      index.insert((i + 1) % 40, hashes.subarray(0, 55), { tier: 'cpu' });
      kept.push([i % 40, hashes]);
    }
    kept.forEach(([instance, hashes], i) => {
      if (i % 3 === 0) index.remove(instance, hashes.subarray(20, 40));
      if (i % 2 === 0) index.touch(hashes.subarray(0, 30));
    });
    for (let i = 0; i < 40; i++) index.clear(i);
    const { blocks, nodes, held, bytesUsed } = index.stats();
    assert.equal([blocks, nodes, held], [0, 0, 0]);
    assert.is(index.check(), 0);
    // The table's directory follows a random hash function: it may settle a round or two later.
    if (round === 3) after = bytesUsed;
    if (round > 3) assert.ok(bytesUsed <= after * 1.1, `${after} bytes, then ${bytesUsed}`);
  }
});

test('snapshots of a growing index do not leave their buffers behind', () => {
  const [plain, saved] = [new PrefixIndex({ keyWidth: 8 }), new PrefixIndex({ keyWidth: 8 })];
  plain.addInstance('a');
  saved.addInstance('a');
  const random = numbers(3n);
  // A million nodes, one block each: a snapshot wants 5 MB at the end.
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 50_000; i++) {
      const hash = BigUint64Array.of(random.next().value);
      plain.insert('a', hash);
      saved.insert('a', hash);
    }
    saved.snapshot();
  }
  const extra = saved.stats().bytesUsed - plain.stats().bytesUsed;
  assert.ok(extra < 13e6, `${extra} bytes for snapshots`);
});

test.run();
