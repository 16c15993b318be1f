// How bytes are shared among NICs of unlike speed: by prediction, and in turn as the control. What is under way on a NIC is less than
// its shaper keeps, and all NICs together are far slower than the emulation, also where it has half a processor: so it is the
// shapers that are measured. Larger slices take the slow NICs so long that soft-RoCE sends some of them twice.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, links, MiB, nic, withSettings, withSides } from './support.js';

const SPEEDS = [4, 2, 1, 1];
const UNIT_MBIT = 4;
const BYTES = 24 * MiB;
/** By how much of what it should be a share may be off. */
const LIMIT = 0.1;

const proportional = SPEEDS.map((speed) => speed / 8);
const equal = SPEEDS.map(() => 1 / SPEEDS.length);
const off = (shares: number[], from: number[]) =>
  Math.max(...shares.map((share, at) => Math.abs(share / from[at] - 1)));
const text = (shares: number[]) => shares.map((share) => share.toFixed(3)).join(' ');

/** Of a batch over NICs that are shaped to SPEEDS. */
function sharesOf(choice: 'predicted' | 'round-robin'): Promise<number[]> {
  const work = async (): Promise<number[]> => {
    let shares: number[] = [];
    await withSides(
      4,
      BYTES,
      async ({ a, peer, ours, theirs }) => {
        // What a link was taken to have before says nothing; this is measured.
        await a.write(peer, one(ours.id, 0, theirs.id, 0, 4 * MiB), { verify: 'off' });
        theirs.memory.fill(0);
        const before = links(a).map(({ bytes }) => bytes);
        await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES), { verify: 'off' });
        shares = links(a).map(({ bytes }, at) => (bytes - before[at]) / BYTES);
        assert.is(hash(theirs.memory), hash(ours.memory));
      },
      { links: choice },
    );
    return shares;
  };
  return withSettings({ MOONCAKE_RDMA_WINDOW: `${128 * 1024}`, MC_SLICE_SIZE: `${32 * 1024}` }, work);
}

test('NICs of 4:2:1:1 carry in proportion to it by prediction, and the same each in turn', async () => {
  for (const [at, speed] of SPEEDS.entries()) nic('rate', at, `${speed * UNIT_MBIT}mbit`);
  try {
    const predicted = await sharesOf('predicted');
    const inTurn = await sharesOf('round-robin');
    console.log(`NOTE shares at 4:2:1:1: predicted ${text(predicted)}; round robin ${text(inTurn)}`);
    assert.ok(off(predicted, proportional) <= LIMIT, text(predicted));
    assert.ok(off(inTurn, proportional) > LIMIT, text(inTurn));
    assert.ok(off(inTurn, equal) <= LIMIT, text(inTurn));
  } finally {
    for (const at of SPEEDS.keys()) nic('clean', at);
  }
});

test.run();
