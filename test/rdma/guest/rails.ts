// Moves over one, two and four NICs a side, with checksums of what arrived.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../../support/descriptors.js';
import { hash, links, MiB, withSides } from './support.js';

for (const rails of [1, 2, 4]) {
  test(`${rails} rails: a write, a read and a batch of blocks arrive as they were`, () =>
    withSides(rails, 16 * MiB, async ({ a, peer, ours, theirs }) => {
      const write = await a.write(peer, one(ours.id, 0, theirs.id, 0, 16 * MiB));
      assert.is(write.bytes, 16 * MiB);
      assert.is(write.verifiedBytes, 16 * MiB);
      assert.is(hash(theirs.memory), hash(ours.memory));
      theirs.memory.set(pattern(16 * MiB, 9));
      const read = await a.read(peer, one(theirs.id, 4097, ours.id, 33, 15 * MiB));
      assert.is(read.bytes, 15 * MiB);
      assert.is(hash(ours.memory.subarray(33, 33 + 15 * MiB)), hash(theirs.memory.subarray(4097, 4097 + 15 * MiB)));
      const block = 16 * 1024;
      const count = 256;
      const records = Array.from({ length: count }, (_, at) => ({
        sourceSegment: ours.id,
        sourceOffset: at * block,
        destinationSegment: theirs.id,
        destinationOffset: (count - 1 - at) * 2 * block,
        length: at % 5 === 0 ? 48 : block,
      }));
      await a.write(peer, descriptorsOf(records));
      for (const { sourceOffset, destinationOffset, length } of records) {
        const sent = ours.memory.subarray(sourceOffset, sourceOffset + length);
        assert.ok(Buffer.from(sent).equals(theirs.memory.subarray(destinationOffset, destinationOffset + length)));
      }
      assert.is(links(a).filter(({ bytes }) => bytes > 0).length, rails, 'every rail has carried something');
    }));
}

test.run();
