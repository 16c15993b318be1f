// Packed keys: any keys come back byte for byte, and what is no key is named.
import fc from 'fast-check';
import { Keys, MAX_KEY_BYTES } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rejects } from '../support/rejects.js';

const key = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }),
  fc.uint8Array({ minLength: 1, maxLength: 40 }),
);

test('any keys, text or bytes, come back as they were', () => {
  fc.assert(
    fc.property(fc.array(key), (all) => {
      const keys = Keys.from(all);
      assert.is(keys.length, all.length);
      for (const [i, one] of all.entries()) {
        assert.equal(Buffer.from(keys.at(i)), Buffer.from(one as string));
        if (typeof one === 'string') assert.is(Buffer.from(keys.text(i)).equals(Buffer.from(one)), true);
      }
      const same = new Keys(keys.bytes, keys.offsets);
      assert.is(same.bytes, keys.bytes);
      assert.is(Keys.from(keys), keys);
    }),
  );
});

test('the longest key, bytes that are no text, and a batch of none', () => {
  const longest = new Uint8Array(MAX_KEY_BYTES).fill(0xff);
  const keys = Keys.from([longest, '…', 'a']);
  assert.is(Keys.from(['\ufeffa']).text(0), '\ufeffa', 'with its byte order mark');
  assert.equal([...keys.offsets], [0, MAX_KEY_BYTES, MAX_KEY_BYTES + 3, MAX_KEY_BYTES + 4]);
  assert.equal(keys.at(0), longest);
  assert.is(keys.text(0), '\ufffd'.repeat(MAX_KEY_BYTES));
  assert.is(keys.text(1), '…');
  assert.is(Keys.from([]).length, 0);
});

test('what is no key, or no description of keys, is named', () => {
  for (const value of [
    '',
    new Uint8Array(0),
    new Uint8Array(MAX_KEY_BYTES + 1),
    '…'.repeat(21846),
    'lone \ud800',
    '\udfff surrogate',
    5,
    null,
    undefined,
    ['a'],
  ]) {
    rejects('keys[2]', () => Keys.from(['a', 'b', value as never]));
  }
  for (const value of ['abc', 5, null, undefined, { length: 0 }, new Uint8Array(2)]) {
    rejects('keys', () => Keys.from(value as never));
  }
  const bytes = Uint8Array.of(1, 2, 3);
  rejects('bytes', () => new Keys([1, 2, 3] as never, Uint32Array.of(0, 3)));
  for (const offsets of [
    [0, 3],
    new Uint32Array(0),
    Uint32Array.of(1, 3),
    Uint32Array.of(0, 2),
    Uint32Array.of(0, 4),
  ]) {
    rejects('offsets', () => new Keys(bytes, offsets as never));
  }
  rejects('offsets[2]', () => new Keys(bytes, Uint32Array.of(0, 2, 2, 3)));
  rejects('offsets[2]', () => new Keys(bytes, Uint32Array.of(0, 3, 1, 3)));
  rejects('offsets[1]', () => new Keys(new Uint8Array(65536), Uint32Array.of(0, 65536)));
  const keys = Keys.from(['a']);
  for (const i of [-1, 1, 0.5, Number.NaN, '0', undefined]) rejects('i', () => keys.at(i as never));
});

test.run();
