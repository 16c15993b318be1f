import { BlockHashes } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hex } from '../support/vectors.js';

const bytes = Uint8Array.from({ length: 48 }, (_, i) => i);

test('hashes are views of one buffer', () => {
  const hashes = new BlockHashes(bytes, 16);
  assert.is(hashes.length, 3);
  assert.is(hashes.at(1).buffer, bytes.buffer);
  assert.is(hashes.hex(1), '101112131415161718191a1b1c1d1e1f');
  assert.equal(
    hashes.toHex(),
    [0, 1, 2].map((i) => hex(bytes.subarray(16 * i, 16 * i + 16))),
  );
});

test('a slice shares the buffer and counts from its start', () => {
  const hashes = new BlockHashes(bytes, 8).slice(2, 5);
  assert.is(hashes.length, 3);
  assert.is(hashes.hex(0), '1011121314151617');
  assert.is(hashes.slice(1).length, 2);
  assert.is(hashes.slice(3).length, 0);
});

test('groups follow each hash as a big-endian u32', () => {
  const keys = new BlockHashes(bytes.subarray(0, 16), 8).withGroup(0x01020304);
  assert.is(hex(keys), '000102030405060701020304' + '08090a0b0c0d0e0f01020304');
});

test('events are the low 64 bits', () => {
  assert.equal([...new BlockHashes(bytes, 16).slice(1, 2).events()], [0x18191a1b1c1d1e1fn]);
  assert.equal([...new BlockHashes(bytes.subarray(0, 8), 8).events()], [0x0001020304050607n]);
});

test.run();
