// Snapshots: what comes back answers as what was saved; what is cut off, corrupt or forged is refused, never a trap.
import fc from 'fast-check';
import { crc64, MooncakeError, PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hashesOf, hashOf } from '../support/prefix-model.js';

const HEADER = 48;
const CHECKSUM = 40;

function sample(): PrefixIndex {
  const index = new PrefixIndex({ keyWidth: 16 });
  for (const name of ['a', 'gone', 'c']) index.addInstance(name);
  index.insert('a', hashesOf('xxxyyy', 16));
  index.insert('c', hashesOf('xxxzz', 16), { tier: 'cpu' });
  index.insert('c', hashesOf('xxx', 16), { tier: 'disk', group: 5 });
  index.insert('a', hashesOf('q', 16));
  index.remove('a', hashOf('xx', 16));
  index.removeInstance('gone');
  return index;
}

/** Puts the right checksum on changed bytes, as who forges a snapshot would. */
function seal(bytes: Uint8Array): Uint8Array {
  const sum = crc64(bytes.subarray(CHECKSUM + 8), crc64(bytes.subarray(0, CHECKSUM)));
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(CHECKSUM, sum, true);
  return bytes;
}

function refused(bytes: Uint8Array, options?: object): string {
  try {
    PrefixIndex.load(bytes, options);
  } catch (error) {
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, 'ERR_SNAPSHOT');
    return (error as MooncakeError).message;
  }
  return assert.unreachable('expected ERR_SNAPSHOT') as never;
}

test('what comes back answers as what was saved, in the same order, and goes on', () => {
  const index = sample();
  const loaded = PrefixIndex.load(index.snapshot());
  assert.is(loaded.check(), 0);
  assert.is(loaded.keyWidth, 16);
  for (const path of ['xxxyyy', 'xxxzz', 'q', 'xy', 'xxxzzw']) {
    const hashes = hashesOf(path, 16);
    for (const group of [0, 5]) {
      assert.equal(loaded.match(hashes, { group }).entries(), index.match(hashes, { group }).entries());
    }
  }
  assert.equal(loaded.evictionOrder(), index.evictionOrder());
  assert.is(loaded.instanceId('c'), 2);
  assert.is(loaded.instanceId('gone'), undefined);
  assert.is(loaded.addInstance('new'), 1);
  assert.is(loaded.insert('new', hashesOf('xxxyyyy', 16)), 7);
  assert.is(loaded.check(), 0);
});

test('an empty index has a snapshot too', () => {
  const loaded = PrefixIndex.load(new PrefixIndex({ keyWidth: 8 }).snapshot().buffer as ArrayBuffer);
  assert.equal([loaded.keyWidth, loaded.stats().blocks, loaded.stats().instances], [8, 0, 0]);
});

test('every truncation and every flipped bit is refused', () => {
  const bytes = sample().snapshot();
  for (let end = 0; end < bytes.length; end++) refused(bytes.subarray(0, end));
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const changed = bytes.slice();
      changed[at] ^= 1 << bit;
      refused(changed);
    }
  }
  const longer = new Uint8Array(bytes.length + 1);
  longer.set(bytes);
  refused(longer);
});

test('the message says what is wrong', () => {
  const bytes = sample().snapshot();
  const changed = (at: number, value: number) => {
    const copy = bytes.slice();
    copy[at] = value;
    return seal(copy);
  };
  assert.match(refused(changed(0, 0)), 'does not start');
  assert.match(refused(changed(8, 2)), 'version 2');
  assert.match(refused(changed(10, 9)), 'keys of 9 bytes');
  assert.match(refused(changed(12, 1)), 'totals');
  assert.match(refused(changed(HEADER, 0)), 'JSON');
  assert.match(refused(bytes, { keyWidth: 32 }), 'keys of 16 bytes where 32');
  assert.match(refused(bytes, { maxInstances: 2 }), '3 instances where 2');
  try {
    PrefixIndex.load('snapshot' as never);
    assert.unreachable();
  } catch (error) {
    assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT');
  }
});

test('forged bytes are refused or make a sound index', () => {
  const bytes = sample().snapshot();
  let loaded = 0;
  const change = fc.record({
    at: fc.nat(bytes.length - 1),
    value: fc.constantFrom(0, 1, 2, 3, 4, 8, 16, 127, 128, 255),
  });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const copy = bytes.slice();
      for (const { at, value } of changes) copy[at] = value;
      try {
        const index = PrefixIndex.load(seal(copy));
        loaded++;
        assert.is(index.check(), 0);
        index.match(hashesOf('xxxyyy', 16));
        index.evictionOrder();
        assert.equal(PrefixIndex.load(index.snapshot()).stats().blocks, index.stats().blocks);
      } catch (error) {
        assert.instance(error, MooncakeError);
        assert.is((error as MooncakeError).code, 'ERR_SNAPSHOT');
      }
    }),
    { numRuns: 3000 },
  );
  assert.ok(loaded > 100, `${loaded} changes were harmless`);
});

test('two runs that start with one hash after one parent are refused', () => {
  const index = new PrefixIndex({ keyWidth: 16 });
  index.addInstance('a');
  index.insert('a', hashesOf('xyy', 16));
  index.insert('a', hashesOf('xzz', 16));
  const bytes = index.snapshot();
  const find = (path: string) => Buffer.from(bytes).indexOf(hashesOf(path, 16).subarray(16, 32));
  const [y, z] = [find('xy'), find('xz')];
  assert.ok(y > 0 && z > 0);
  bytes.copyWithin(z, y, y + 16);
  assert.match(refused(seal(bytes)), 'contradict');
});

test('a snapshot of many windows', () => {
  const index = new PrefixIndex({ keyWidth: 32 });
  index.addInstance('a');
  for (let i = 0; i < 400; i++) {
    const run = new Uint8Array(200 * 32);
    const view = new DataView(run.buffer);
    for (let j = 0; j < 200; j++) {
      view.setUint32(32 * j, 1);
      view.setUint32(32 * j + 28, 1000 * i + j);
    }
    index.insert('a', run);
  }
  const bytes = index.snapshot();
  assert.ok(bytes.length > 2.5e6);
  const loaded = PrefixIndex.load(bytes);
  assert.is(loaded.check(), 0);
  assert.equal(loaded.snapshot(), bytes);
  assert.is(loaded.stats().held, 80_000);
});

test.run();
