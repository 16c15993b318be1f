// Moves over one, two and four NICs a side, with checksums of what arrived.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../../support/descriptors.js';
import { hash, links, MiB, nic, withSides } from './support.js';

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

test('NICs of unlike speed carry in proportion to it, and in turn they would not', () =>
  withSides(4, 32 * MiB, async ({ a, peer, ours, theirs }) => {
    const speeds = [4, 2, 1, 1];
    // The slowest alone must be slower than what the emulation manages in all.
    for (const [at, speed] of speeds.entries()) nic('rate', at, `${speed * 8}mbit`);
    // What was measured before says nothing any more; this is measured.
    await a.write(peer, one(ours.id, 0, theirs.id, 0, 8 * MiB), { verify: 'off' });
    const before = links(a).map(({ bytes }) => bytes);
    await a.write(peer, one(ours.id, 0, theirs.id, 0, 32 * MiB), { verify: 'off' });
    const carried = links(a).map(({ bytes }, at) => bytes - before[at]);
    for (const [at] of speeds.entries()) nic('clean', at);
    assert.is(hash(theirs.memory), hash(ours.memory));
    const shares = carried.map((bytes) => bytes / (32 * MiB));
    console.log(`NOTE shares at 4:2:1:1: ${shares.map((share) => share.toFixed(3)).join(' ')}`);
    const wanted = speeds.map((speed) => speed / 8);
    const off = (list: number[]) => Math.max(...list.map((share, at) => Math.abs(share - wanted[at])));
    assert.ok(off(shares) <= 0.1, `shares ${shares}`);
    assert.ok(off([0.25, 0.25, 0.25, 0.25]) > 0.1, 'in turn');
  }));

test.run();
