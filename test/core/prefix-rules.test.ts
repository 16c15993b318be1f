// The rules of the index, one by one: positions and parents, tiers and groups, eviction and gaps, widths of hashes, and
// what it refuses.
import { MooncakeError, PrefixIndex, PrefixReader } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hashesOf, hashOf } from '../support/prefix-model.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** An index of 32-byte keys with instances a, b and c. */
function index3(): PrefixIndex {
  const index = new PrefixIndex();
  for (const name of ['a', 'b', 'c']) index.addInstance(name);
  return index;
}

const chain = (path: string, from = 0) => hashesOf(path, 32, from);

function refuses(call: () => unknown, code: string, argument?: string): void {
  try {
    call();
  } catch (error) {
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, code);
    if (argument !== undefined) assert.is((error as MooncakeError).argument, argument);
    return;
  }
  assert.unreachable(`expected ${code}`);
}

test('the longest prefix of each instance, and of all together', () => {
  const index = index3();
  index.insert('a', chain('xxxyy'));
  index.insert('b', chain('xxx'));
  const match = index.match(chain('xxxyyzz'));
  assert.is(match.matched, 5);
  assert.is(match.approximate, false);
  assert.is(match.length('a'), 5);
  assert.is(match.length(1), 3);
  assert.is(match.length('c'), 0);
  assert.is(match.length('nobody'), 0);
  assert.equal(match.best(), { instance: 0, name: 'a', gpu: 5, cpu: 0, disk: 0, any: 5 });
  assert.is(match.best('disk'), undefined);
  assert.equal(
    match.entries().map(({ name, any }) => [name, any]),
    [
      ['a', 5],
      ['b', 3],
    ],
  );
  assert.is(index.match(chain('yy')).matched, 0);
  assert.is(index.match(new Uint8Array(0)).matched, 0);
});

test('tiers count alone and together', () => {
  const index = index3();
  index.insert('a', chain('xxx'), { tier: 'gpu' });
  index.insert('a', chain('xxxxx', 2), { tier: 'cpu', parent: hashOf('xx', 32) });
  const match = index.match(chain('xxxxxx'));
  assert.is(match.length('a', 'gpu'), 3);
  assert.is(match.length('a', 'cpu'), 0);
  assert.is(match.length('a'), 5);
  index.clear('a', { tier: 'cpu' });
  assert.is(index.match(chain('xxxxxx')).length('a'), 3);
});

test('groups are apart', () => {
  const index = index3();
  index.insert('a', chain('xxx'), { group: 1 });
  assert.is(index.match(chain('xxx')).matched, 0);
  assert.is(index.match(chain('xxx'), { group: 1 }).length('a'), 3);
});

test('a chain that grows block by block stays one node', () => {
  const index = index3();
  const path = 'x'.repeat(500);
  for (let end = 1; end <= path.length; end++) {
    const parent = end > 1 ? hashOf(path.slice(0, end - 1), 32) : undefined;
    assert.is(index.insert('a', chain(path.slice(0, end), end - 1), { parent }), 1);
    assert.is(index.insert('b', chain('y'.repeat(end))), 1);
  }
  assert.is(index.stats().nodes, 2);
  assert.is(index.match(chain(path)).length('a'), 500);
});

test('a run longer than a node goes on in the next', () => {
  const index = new PrefixIndex({ keyWidth: 8 });
  index.addInstance('a');
  const hashes = BigUint64Array.from({ length: 40_000 }, (_, i) => BigInt(i + 1) * 0x9e3779b97f4a7c15n);
  assert.is(index.insert('a', hashes), 40_000);
  assert.is(index.match(hashes).length('a'), 40_000);
  assert.is(index.match(hashes.subarray(0, 30_000)).length('a'), 30_000);
  assert.is(index.check(), 0);
  assert.is(PrefixIndex.load(index.snapshot()).match(hashes).length('a'), 40_000);
  const listed = (limit?: number) => {
    const { buffer, byteOffset, length } = index.evictionOrder(limit === undefined ? {} : { limit }).bytes;
    const view = new DataView(buffer, byteOffset, length);
    return BigUint64Array.from({ length: length / 8 }, (_, i) => view.getBigUint64(8 * i));
  };
  const backwards = BigUint64Array.from(Array.from(hashes).reverse(), (hash) => hash & 0xffff_ffff_ffff_ffffn);
  assert.equal(listed(), backwards);
  assert.equal(listed(5001), backwards.slice(0, 5001));
  assert.is(index.remove('a', hashes), 40_000);
  assert.equal([index.stats().blocks, index.stats().nodes], [0, 0]);
});

test('an insertion after an unknown parent records nothing and is counted', () => {
  const index = index3();
  assert.is(index.insert('a', chain('xyz', 2), { parent: hashOf('xy', 32) }), 0);
  assert.is(index.stats().orphans, 1);
  assert.is(index.stats().blocks, 0);
  // The index knows the parent through another instance: the block has its place, though `a` has no prefix up to it.
  index.insert('b', chain('xy'));
  assert.is(index.insert('a', chain('xyz', 2), { parent: hashOf('xy', 32) }), 1);
  const match = index.match(chain('xyz'));
  assert.is(match.length('a'), 0);
  assert.is(match.matched, 3);
  index.insert('a', chain('xy'));
  assert.is(index.match(chain('xyz')).length('a'), 3);
});

test('a hash may stand under two parents: each path is its own', () => {
  const index = index3();
  index.insert('a', chain('xyz'));
  const other = Uint8Array.from([...hashOf('w', 32), ...hashOf('xy', 32), ...hashOf('xyzv', 32)]);
  assert.is(index.insert('b', other), 3);
  assert.is(index.match(chain('xyz')).length('a'), 3);
  assert.is(index.match(other).length('b'), 3);
  assert.equal([index.match(chain('xyz')).length('b'), index.match(other).length('a')], [0, 0]);
  // As a parent it means the block that the holder has; to one who has neither it means nothing.
  assert.is(index.insert('b', hashOf('xyw', 32), { parent: hashOf('xy', 32) }), 1);
  assert.is(index.match(Uint8Array.from([...other.subarray(0, 64), ...hashOf('xyw', 32)])).length('b'), 3);
  assert.is(index.insert('c', hashOf('xyw', 32), { parent: hashOf('xy', 32) }), 0);
  assert.is(index.stats().orphans, 1);
  assert.is(index.check(), 0);
  const copy = PrefixIndex.load(index.snapshot());
  for (const one of [index, copy]) {
    // Who has both loses both; `has` says yes as long as one is left.
    one.insert('b', chain('xyz'));
    assert.is(one.insert('b', hashOf('xyu', 32), { parent: hashOf('xy', 32) }), 0);
    assert.is(one.remove('b', hashOf('xy', 32)), 2);
    assert.equal([one.match(chain('xyz')).length('b'), one.match(other).length('b')], [1, 1]);
    assert.is(one.match(chain('xyz')).length('a'), 3);
    one.clear('a');
    assert.ok(one.has(hashOf('xy', 32)));
    one.clear('b');
    assert.not(one.has(hashOf('xy', 32)));
    assert.equal([one.stats().blocks, one.check()], [0, 0]);
  }
});

test('groups of two block sizes: the large block has the key of its last small one', () => {
  const index = index3();
  index.insert('a', chain('wxyz'));
  const large = Uint8Array.from([...hashOf('wx', 32), ...hashOf('wxyz', 32)]);
  assert.is(index.insert('a', large, { group: 1 }), 2);
  const next = { group: 1, parent: hashOf('wxyz', 32) };
  assert.is(index.insert('a', hashOf('wxyzuv', 32), next), 1);
  const longer = Uint8Array.from([...large, ...hashOf('wxyzuv', 32)]);
  assert.is(index.match(longer, { group: 1 }).length('a'), 3);
  assert.is(index.match(chain('wxyz')).length('a'), 4);
  assert.is(index.remove('a', hashOf('wx', 32)), 1);
  assert.is(index.match(chain('wxyz')).length('a'), 1);
  assert.is(index.match(longer, { group: 1 }).length('a'), 3);
});

test('hashes that are no chain make a tree of their own, and leave others alone', () => {
  const index = index3();
  index.insert('a', chain('xyz'));
  const loops = [
    [hashOf('x', 32), hashOf('xyz', 32)],
    [hashOf('w', 32), hashOf('w', 32), hashOf('w', 32)],
    [hashOf('w', 32), hashOf('xy', 32), hashOf('v', 32)],
  ].map((hashes) => Uint8Array.from(hashes.flatMap((hash) => [...hash])));
  for (const hashes of loops) index.insert('b', hashes);
  assert.is(index.insert('a', chain('xy', 1), { parent: hashOf('xy', 32) }), 1);
  assert.is(index.check(), 0);
  for (const hashes of loops) assert.is(index.match(hashes).length('b'), hashes.length / 32);
  assert.is(index.match(chain('xyz')).length('a'), 3);
  assert.is(index.remove('b', Uint8Array.from(loops.flatMap((hashes) => [...hashes]))), 7);
  assert.is(index.match(chain('xyz')).length('a'), 3);
  assert.is(index.check(), 0);
});

test('a hash at another place of a run that grew block by block is no step', () => {
  const index = index3();
  for (let end = 1; end <= 12; end++) {
    for (const letter of 'xy') {
      const path = letter.repeat(end);
      index.insert('a', chain(path, end - 1), end > 1 ? { parent: hashOf(path.slice(1), 32) } : {});
    }
  }
  const at = (end: number) => hashOf('x'.repeat(end), 32);
  const jumps = [at(1), at(6), hashOf('z', 32)];
  assert.is(index.insert('b', Uint8Array.from(jumps.flatMap((hash) => [...hash]))), 3);
  assert.is(index.check(), 0);
  assert.is(index.match(chain('x'.repeat(12))).length('b'), 1);
  assert.is(index.match(chain('x'.repeat(12))).length('a'), 12);
});

test('more keys that end in the same 64 bits than a segment of the table has room for', () => {
  const index = new PrefixIndex({ keyWidth: 16 });
  index.addInstance('a');
  const key = (high: number, low: number) => new Uint8Array(new BigUint64Array([BigInt(high), BigInt(low)]).buffer);
  const pair = (i: number) => Uint8Array.from([...key(0, i), ...key(i, 1 << 20)]);
  for (let i = 1; i <= 5000; i++) assert.is(index.insert('a', pair(i)), 2);
  for (let i = 1; i <= 5000; i += 7) assert.ok(index.has(key(i, 1 << 20)), `${i}`);
  assert.not(index.has(key(5001, 1 << 20)));
  assert.is(index.check(), 0);
  for (let i = 5000; i > 0; i -= 50) assert.is(index.remove('a', pair(i)), 2);
  for (let i = 1; i <= 5000; i += 7) assert.is(index.match(pair(i)).length('a'), i % 50 ? 2 : 0);
  assert.is(index.check(), 0);
});

test('a hash at more places than a segment of the table has room for', () => {
  const index = new PrefixIndex({ keyWidth: 8 });
  index.addInstance('a');
  const same = 77n << 32n;
  for (let i = 1n; i <= 5000n; i++) assert.is(index.insert('a', BigUint64Array.of(i << 20n, same)), 2);
  assert.ok(index.has(same));
  assert.not(index.has(78n));
  assert.is(index.check(), 0);
  assert.is(index.remove('a', BigUint64Array.of(4000n << 20n)), 1);
  assert.is(index.match(BigUint64Array.of(3999n << 20n, same)).length('a'), 2);
  assert.is(index.remove('a', BigUint64Array.of(same)), 5000);
  assert.not(index.has(same));
  assert.is(index.check(), 0);
  assert.is(index.stats().held, 4999);
});

test('a block evicted in the middle ends the prefix there, until it comes back', () => {
  const index = index3();
  index.insert('a', chain('xxxxx'));
  assert.is(index.remove('a', hashOf('xxx', 32)), 1);
  assert.is(index.remove('a', hashOf('xxx', 32)), 0);
  assert.is(index.match(chain('xxxxx')).length('a'), 2);
  assert.is(index.stats().blocks, 5);
  assert.is(index.insert('a', chain('xxxxx')), 1);
  assert.is(index.match(chain('xxxxx')).length('a'), 5);
  assert.is(index.stats().nodes, 1);
});

test('the order of eviction is the order of use, descendants first', () => {
  const index = index3();
  index.insert('a', chain('xxxx'));
  index.insert('b', chain('xy'));
  const order = (options?: object) => {
    const { bytes, length, width } = index.evictionOrder(options);
    return Array.from({ length }, (_, i) => hex(bytes.subarray(i * width, (i + 1) * width)));
  };
  const paths = (...list: string[]) => list.map((path) => hex(hashOf(path, 32)));
  assert.equal(order(), paths('xxxx', 'xxx', 'xx', 'xy', 'x'));
  assert.equal(order({ instance: 'b' }), paths('xy', 'x'));
  assert.is(index.touch(chain('xxxz')), 3);
  assert.equal(order(), paths('xxxx', 'xy', 'xxx', 'xx', 'x'));
  assert.equal(order({ limit: 2 }), paths('xxxx', 'xy'));
  assert.equal(order({ tier: 'disk' }), []);
});

test('instances come and go; an id is given again', () => {
  const index = new PrefixIndex({ maxInstances: 2 });
  assert.is(index.addInstance('a'), 0);
  assert.is(index.addInstance('b'), 1);
  assert.is(index.addInstance('a'), 0);
  assert.is(index.instanceId('b'), 1);
  assert.is(index.instanceName(1), 'b');
  refuses(() => index.addInstance('c'), 'ERR_INVALID_ARGUMENT', 'name');
  index.insert('a', chain('xx'), { tier: 'disk', group: 3 });
  index.insert('b', chain('x'));
  assert.is(index.removeInstance('a'), 2);
  assert.is(index.instanceId('a'), undefined);
  refuses(() => index.match(chain('x')) && index.insert(0, chain('x')), 'ERR_INVALID_ARGUMENT', 'instance');
  assert.is(index.stats().blocks, 1);
  assert.is(index.addInstance('c'), 0);
  assert.is(index.match(chain('xx')).length('c'), 0);
});

test('the same hash as bytes, as a run and as a number', () => {
  const wide = { bytes: chain('xyz'), width: 32 as const, length: 3 };
  const low = Uint8Array.from([0, 1, 2].flatMap((i) => [...wide.bytes.subarray(32 * i + 24, 32 * i + 32)]));
  const view = new DataView(low.buffer);
  const numbers = BigUint64Array.from([0, 1, 2], (i) => view.getBigUint64(8 * i));
  const forms = [wide, low, numbers, { bytes: low, width: 8 as const, length: 3 }];
  for (const form of forms) {
    const index = new PrefixIndex({ keyWidth: 8 });
    index.addInstance('a');
    assert.is(index.insert('a', form), 3);
    for (const other of forms) {
      const match = index.match(other);
      assert.is(match.length('a'), 3);
      assert.is(match.approximate, other === wide);
    }
    assert.ok(index.has(numbers[1]));
    assert.ok(index.has(low.subarray(8, 16)));
    assert.ok(index.has(wide.bytes.subarray(32, 64)));
    assert.not(index.has(7n));
    assert.is(
      hex(index.evictionOrder().bytes),
      hex(Uint8Array.from([2, 1, 0].flatMap((i) => [...low.subarray(8 * i, 8 * i + 8)]))),
    );
  }
});

test('what is wrong is named, and the index goes on', () => {
  const index = index3();
  const narrow = new PrefixIndex({ keyWidth: 8 });
  const any = (value: unknown) => value as never;
  refuses(() => new PrefixIndex({ keyWidth: any(12) }), 'ERR_INVALID_ARGUMENT', 'keyWidth');
  refuses(() => new PrefixIndex({ maxInstances: 1025 }), 'ERR_INVALID_ARGUMENT', 'maxInstances');
  refuses(() => new PrefixIndex({ maxBytes: 0 }), 'ERR_INVALID_ARGUMENT', 'maxBytes');
  refuses(() => new PrefixIndex({ shared: any(1) }), 'ERR_INVALID_ARGUMENT', 'shared');
  refuses(() => new PrefixIndex(any(null)), 'ERR_INVALID_ARGUMENT', 'options');
  refuses(() => index.addInstance(any(3)), 'ERR_INVALID_ARGUMENT', 'name');
  refuses(() => index.instanceName(-1), 'ERR_INVALID_ARGUMENT', 'id');
  for (const instance of ['nobody', 3, -1, 0.5, Number.NaN, undefined, null, {}]) {
    refuses(() => index.insert(any(instance), chain('x')), 'ERR_INVALID_ARGUMENT', 'instance');
  }
  for (const hashes of [
    undefined,
    null,
    'ab',
    3,
    [],
    {},
    chain('x').subarray(1),
    BigUint64Array.of(1n),
    new Uint32Array(8),
  ]) {
    refuses(() => index.insert('a', any(hashes)), 'ERR_INVALID_ARGUMENT', 'hashes');
    refuses(() => index.match(any(hashes)), 'ERR_INVALID_ARGUMENT', 'hashes');
    refuses(() => index.remove('a', any(hashes)), 'ERR_INVALID_ARGUMENT', 'hashes');
    refuses(() => index.touch(any(hashes)), 'ERR_INVALID_ARGUMENT', 'hashes');
  }
  refuses(() => index.match({ bytes: chain('x'), width: any(5), length: 1 }), 'ERR_INVALID_ARGUMENT', 'hashes.width');
  refuses(() => index.match({ bytes: chain('x'), width: 16, length: 2 }), 'ERR_INVALID_ARGUMENT', 'hashes');
  refuses(
    () => narrow.match({ bytes: new Uint8Array(33), width: 32, length: 1 }),
    'ERR_INVALID_ARGUMENT',
    'hashes.bytes',
  );
  refuses(() => index.insert('a', chain('x'), { tier: any('tape') }), 'ERR_INVALID_ARGUMENT', 'tier');
  refuses(() => index.insert('a', chain('x'), { group: 16 }), 'ERR_INVALID_ARGUMENT', 'group');
  refuses(() => index.insert('a', chain('x'), { parent: chain('xy') }), 'ERR_INVALID_ARGUMENT');
  refuses(() => index.insert('a', chain('x'), { parent: 5n }), 'ERR_INVALID_ARGUMENT', 'parent');
  refuses(() => index.insert('a', chain('x'), any(4)), 'ERR_INVALID_ARGUMENT', 'options');
  refuses(() => narrow.has(-1n), 'ERR_INVALID_ARGUMENT', 'hash');
  refuses(() => narrow.has(1n << 64n), 'ERR_INVALID_ARGUMENT', 'hash');
  refuses(() => index.match(chain('x'), { group: -1 }), 'ERR_INVALID_ARGUMENT', 'group');
  for (const out of [new Uint32Array(2), new Proxy(new Uint32Array(4), {}), new Float64Array(4), null]) {
    refuses(() => index.matchInto(chain('x'), any(out)), 'ERR_INVALID_ARGUMENT', 'out');
  }
  refuses(() => index.match(chain('x')).length('a', any('tape')), 'ERR_INVALID_ARGUMENT', 'tier');
  refuses(() => index.evictionOrder({ limit: -1 }), 'ERR_INVALID_ARGUMENT', 'limit');
  refuses(() => index.clear(any('nobody')), 'ERR_INVALID_ARGUMENT', 'instance');
  refuses(() => index.reader(), 'ERR_NOT_SUPPORTED');
  index.insert('a', chain('xyz'));
  assert.is(index.match(chain('xyz')).length('a'), 3);
  assert.is(index.check(), 0);
});

test('a run says as many hashes as it has; a long one in the place of a parent writes nowhere', () => {
  const index = index3();
  index.insert('a', chain('xyz'));
  const long = { bytes: new Uint8Array(32 * 4000).fill(0xff), width: 32 as const, length: 1 };
  refuses(() => index.insert('b', chain('xyz', 1), { parent: long }), 'ERR_INVALID_ARGUMENT', 'parent.length');
  refuses(() => index.has(long), 'ERR_INVALID_ARGUMENT', 'hash.length');
  refuses(() => index.match({ ...long, length: 3999 }), 'ERR_INVALID_ARGUMENT', 'hashes.length');
  // A run may have getters: what was checked is what is used.
  let asked = 0;
  const growing = {
    get bytes() {
      return asked++ === 0 ? chain('x') : long.bytes;
    },
    width: 32 as const,
    length: 1,
  };
  assert.is(index.insert('b', growing), 1);
  assert.is(index.match(chain('xyz')).length('a'), 3);
  assert.is(index.match(chain('xyz')).length('b'), 1);
  assert.is(index.check(), 0);
});

test('hashes that look like typed arrays, or whose buffer went elsewhere, are refused', () => {
  const index = new PrefixIndex({ keyWidth: 8, shared: true });
  index.addInstance('a');
  const reader = PrefixReader.attach(index.reader());
  const gone = new Uint8Array(32);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  const fakes = [
    gone,
    new Proxy(new Uint8Array(32), {}),
    Object.create(Uint8Array.prototype),
    Object.create(BigUint64Array.prototype),
    { bytes: gone, width: 8, length: 0 },
    { bytes: Object.create(Uint8Array.prototype), width: 8, length: 0 },
    'hashes',
    7,
  ];
  for (const fake of fakes as never[]) {
    refuses(() => index.insert('a', fake), 'ERR_INVALID_ARGUMENT');
    refuses(() => index.remove('a', fake), 'ERR_INVALID_ARGUMENT');
    refuses(() => index.touch(fake), 'ERR_INVALID_ARGUMENT');
    refuses(() => index.has(fake), 'ERR_INVALID_ARGUMENT');
    refuses(() => index.match(fake), 'ERR_INVALID_ARGUMENT');
    refuses(() => reader.match(fake), 'ERR_INVALID_ARGUMENT');
  }
  assert.is(index.check(), 0);
});

test('nothing stands for all instances where one is cleared', () => {
  const index = index3();
  index.insert('a', chain('xyz'));
  refuses(() => index.clear(index.instanceId('nobody') as never), 'ERR_INVALID_ARGUMENT', 'instance');
  assert.is(index.stats().held, 3);
});

test('the length of what is no instance is refused; of an unknown one it is 0', () => {
  const index = index3();
  index.insert('a', chain('xyz'));
  const match = index.match(chain('xyz'));
  assert.equal([match.length('nobody'), match.length(1000)], [0, 0]);
  for (const id of [0.25, -1, Number.NaN, 1n, null, undefined, Symbol('a')]) {
    refuses(() => match.length(id as never), 'ERR_INVALID_ARGUMENT', 'instance');
  }
});

test('an index that may not grow says so, and goes on with what it has', () => {
  refuses(() => new PrefixIndex({ maxBytes: 65536 }), 'ERR_OUT_OF_MEMORY');
  const index = new PrefixIndex({ keyWidth: 8, maxBytes: 1 << 20 });
  index.addInstance('a');
  let next = 1n;
  const chains: BigUint64Array[] = [];
  const fill = () => {
    for (;;) {
      const hashes = BigUint64Array.from({ length: 50 }, () => next++ * 0x9e3779b97f4a7c15n);
      index.insert('a', hashes);
      chains.push(hashes);
    }
  };
  refuses(fill, 'ERR_OUT_OF_MEMORY');
  assert.is(index.check(), 0);
  assert.ok(chains.length > 50);
  // A record and a slot of the table for each, also of those that the table does not have yet.
  assert.ok(index.stats().blocks * (16 + 8) < 1 << 20);
  for (const hashes of chains) assert.is(index.match(hashes).length('a'), 50);
  assert.is(index.evictionOrder().length, 50 * chains.length);
  for (const hashes of chains) assert.is(index.remove('a', hashes), 50);
  assert.is(index.check(), 0);
  refuses(fill, 'ERR_OUT_OF_MEMORY');
  assert.is(index.check(), 0);
});

test.run();
