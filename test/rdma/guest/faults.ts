// NICs that fail in mid-transfer, in every way that the virtual machine knows: all bytes right, and how long it took is told.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, linked, links, MiB, nic, sleep, withSettings, withSides } from './support.js';

const BYTES = 16 * MiB;
/** Of NICs 0 to 3: a transfer takes 8 s, and so longer than a busy machine needs for what is done to it. */
const RATE = '4mbit';

/** What is done to NIC 1, and what takes it back. NICs 0 to 3 are ours, 4 to 7 the peer's. `fatal`: its slices fail. */
const FAULTS: { name: string; begin(): void; end(): void; fatal: boolean }[] = [
  { name: 'our NIC is taken down', begin: () => nic('down', 1), end: () => nic('up', 1), fatal: true },
  { name: 'our cable is pulled', begin: () => nic('cable-out', 1), end: () => nic('cable-in', 1), fatal: true },
  { name: 'the peer’s NIC is taken down', begin: () => nic('down', 5), end: () => nic('up', 5), fatal: true },
  { name: 'the peer’s cable is pulled', begin: () => nic('cable-out', 5), end: () => nic('cable-in', 5), fatal: true },
  { name: 'every packet is lost', begin: () => nic('loss', 1, 100), end: () => nic('rate', 1, RATE), fatal: true },
  {
    name: 'one packet of a hundred is lost',
    begin: () => nic('loss', 1, 1),
    end: () => nic('rate', 1, RATE),
    fatal: false,
  },
];

test('a NIC that fails in mid-transfer: its slices go over the others, and it comes back', () =>
  // Less under way than the shapers keep: what they drop would be sent again.
  withSettings({ MOONCAKE_RDMA_WINDOW: `${128 * 1024}`, MC_SLICE_SIZE: `${64 * 1024}` }, () =>
    withSides(4, BYTES, async ({ a, peer, ours, theirs }) => {
      for (const at of [0, 1, 2, 3]) nic('rate', at, RATE);
      const wanted = hash(ours.memory);
      const total = (count: 'bytes' | 'failures') => links(a).reduce((sum, link) => sum + link[count], 0);
      for (const { name, begin, end, fatal } of FAULTS) {
        theirs.memory.fill(0);
        const failures = total('failures');
        const begun = total('bytes');
        const done = a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES), { verify: 'off' });
        while (total('bytes') < begun + MiB) await sleep(2);
        const failed = Date.now();
        begin();
        const { bytes } = await done;
        const took = Date.now() - failed;
        assert.is(bytes, BYTES, name);
        assert.is(hash(theirs.memory), wanted, name);
        const lost = total('failures') - failures;
        assert.ok(!fatal || lost > 0, `${name}: no slice has failed`);
        end();
        const again = Date.now();
        await linked(a, 4);
        const back = Date.now() - again;
        console.log(`NOTE ${name}: done ${took} ms later, ${lost} slices sent again; back after ${back} ms`);
      }
      for (const at of [0, 1, 2, 3]) nic('clean', at);
    }),
  ));

test.run();
