// How bytes are shared among NICs of unlike speed. What is under way on a NIC is less than its shaper keeps, and all NICs together
// are far slower than the emulation, also where it has half a processor: so it is the shapers that are measured.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, links, MiB, nic, withSettings, withSides } from './support.js';

const SPEEDS = [4, 2, 1, 1];
const UNIT_MBIT = 4;
const BYTES = 24 * MiB;

test('NICs of unlike speed carry in proportion to it, NICs of one speed do not', () =>
  withSettings({ MOONCAKE_RDMA_WINDOW: `${128 * 1024}`, MC_SLICE_SIZE: `${64 * 1024}` }, () =>
    withSides(4, BYTES, async ({ a, peer, ours, theirs }) => {
      const shares = async () => {
        const before = links(a).map(({ bytes }) => bytes);
        await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES), { verify: 'off' });
        return links(a).map(({ bytes }, at) => (bytes - before[at]) / BYTES);
      };
      const off = (list: number[]) => Math.max(...list.map((share, at) => Math.abs(share - SPEEDS[at] / 8)));
      const alike = await shares();
      for (const [at, speed] of SPEEDS.entries()) nic('rate', at, `${speed * UNIT_MBIT}mbit`);
      // What was measured before says nothing any more; this is measured.
      await a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB), { verify: 'off' });
      theirs.memory.fill(0);
      const unlike = await shares();
      for (const at of SPEEDS.keys()) nic('clean', at);
      const text = (list: number[]) => list.map((share) => share.toFixed(3)).join(' ');
      console.log(`NOTE shares at 4:2:1:1: ${text(unlike)}; at one speed: ${text(alike)}`);
      assert.is(hash(theirs.memory), hash(ours.memory));
      assert.ok(off(unlike) <= 0.05, text(unlike));
      assert.ok(off(alike) > 0.05, text(alike));
    }),
  ));

test.run();
