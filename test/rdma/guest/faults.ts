// NICs that fail in mid-transfer, in every way that the virtual machine knows: all bytes right, and how long it took is told.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, linked, links, MiB, nic, withSides } from './support.js';

const BYTES = 16 * MiB;
/** Into a transfer that takes longer. */
const SOON_MS = 150;

/** What is done to NIC 1, and what takes it back. NICs 0 to 3 are ours, 4 to 7 the peer's. */
const FAULTS: { name: string; begin(): void; end(): void }[] = [
  { name: 'our NIC is taken down', begin: () => nic('down', 1), end: () => nic('up', 1) },
  { name: 'our cable is pulled', begin: () => nic('cable-out', 1), end: () => nic('cable-in', 1) },
  { name: 'the peer’s NIC is taken down', begin: () => nic('down', 5), end: () => nic('up', 5) },
  { name: 'the peer’s cable is pulled', begin: () => nic('cable-out', 5), end: () => nic('cable-in', 5) },
  { name: 'every packet is lost', begin: () => nic('loss', 1, 100), end: () => nic('clean', 1) },
  { name: 'one packet of a hundred is lost', begin: () => nic('loss', 1, 1), end: () => nic('clean', 1) },
];

test('a NIC that fails in mid-transfer: its slices go over the others, and it comes back', () =>
  withSides(4, BYTES, async ({ a, peer, ours, theirs }) => {
    for (const { name, begin, end } of FAULTS) {
      theirs.memory.fill(0);
      const started = Date.now();
      const done = a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES), { verify: 'off' });
      await new Promise((resolve) => setTimeout(resolve, SOON_MS));
      begin();
      const { bytes } = await done;
      const took = Date.now() - started;
      assert.is(bytes, BYTES, name);
      assert.is(hash(theirs.memory), hash(ours.memory), name);
      const failures = links(a).reduce((sum, link) => sum + link.failures, 0);
      end();
      const again = Date.now();
      await linked(a, 4);
      console.log(
        `NOTE ${name}: ${took} ms in all, ${failures} slices failed so far, back after ${Date.now() - again} ms`,
      );
    }
  }));

test.run();
