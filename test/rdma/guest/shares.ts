// How bytes are shared among NICs of unlike speed. What is under way on a NIC is less than its shaper keeps, and all NICs together
// are slower than the emulation: so it is the shapers that are measured.
process.env.MOONCAKE_RDMA_WINDOW = `${256 * 1024}`;
process.env.MC_SLICE_SIZE = `${64 * 1024}`;

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, links, MiB, nic, withSides } from './support.js';

test('NICs of unlike speed carry in proportion to it, and in turn they would not', () =>
  withSides(4, 24 * MiB, async ({ a, peer, ours, theirs }) => {
    const speeds = [4, 2, 1, 1];
    for (const [at, speed] of speeds.entries()) nic('rate', at, `${speed * 16}mbit`);
    // What was measured before says nothing any more; this is measured.
    await a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB), { verify: 'off' });
    const wanted = speeds.map((speed) => speed / 8);
    const off = (list: number[]) => Math.max(...list.map((share, at) => Math.abs(share - wanted[at])));
    let shares: number[] = [];
    // Where the emulation is held up, it is for a while slower than the shapers: up to three times.
    for (let attempt = 0; attempt < 3; attempt++) {
      const before = links(a).map(({ bytes }) => bytes);
      await a.write(peer, one(ours.id, 0, theirs.id, 0, 24 * MiB), { verify: 'off' });
      shares = links(a).map(({ bytes }, at) => (bytes - before[at]) / (24 * MiB));
      console.log(`NOTE shares at 4:2:1:1: ${shares.map((share) => share.toFixed(3)).join(' ')}`);
      if (off(shares) <= 0.1) break;
    }
    for (const [at] of speeds.entries()) nic('clean', at);
    assert.is(hash(theirs.memory), hash(ours.memory));
    assert.ok(off(shares) <= 0.1, `shares ${shares}`);
    assert.ok(off([0.25, 0.25, 0.25, 0.25]) > 0.1, 'in turn');
  }));

test.run();
