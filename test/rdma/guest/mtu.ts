// Sides of unlike MTU, and a network that carries less than both: the connection uses what arrives.
import { execFileSync } from 'node:child_process';
import type { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../../support/descriptors.js';
import { hash, linked, links, MiB, sleep, withSides } from './support.js';

const BYTES = 2 * MiB;
/** Of the machine's interfaces, for packets of 4096 bytes. */
const USUAL = 4200;

/** Packets become longer again without a failure, some 10 s after they can. */
async function grows(engine: TransferEngine): Promise<void> {
  for (const until = Date.now() + 120_000; links(engine)[0].detail !== 'MTU 4096'; await sleep(50)) {
    assert.ok(Date.now() < until, JSON.stringify(links(engine)));
  }
}

const mtu = (name: string, bytes: number) => execFileSync('ip', ['link', 'set', name, 'mtu', `${bytes}`]);

test('an interface of a smaller MTU: both sides use it, and the larger one when it has that again', async () => {
  mtu('net1', 1500);
  try {
    await withSides(1, BYTES, async ({ a, peer, ours, theirs }) => {
      assert.is(links(a)[0].detail, 'MTU 1024');
      const { verifiedBytes } = await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES));
      assert.is(verifiedBytes, BYTES);
      assert.is(hash(theirs.memory), hash(ours.memory));
      mtu('net1', USUAL);
      await grows(a);
      theirs.memory.fill(0);
      await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES));
      assert.is(hash(theirs.memory), hash(ours.memory));
      assert.is(links(a)[0].failures, 0);
    });
  } finally {
    mtu('net1', USUAL);
  }
});

test('a network that loses long packets: the error says it, shorter ones are used, and long ones when they arrive', async () => {
  try {
    await withSides(1, BYTES, async ({ a, peer, ours, theirs }) => {
      assert.is(links(a)[0].detail, 'MTU 4096');
      // The port of the bridge that leads to the peer: neither end sees it.
      mtu('sw1', 1500);
      const error = await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES), { verify: 'off' }).catch((e) => e);
      assert.is(error.code, 'ERR_PEER', `${error}`);
      assert.match(error.message, /rxe0.*rxe1/);
      let seen = '';
      for (let [{ alive, detail }] = links(a); !alive; [{ alive, detail }] = links(a)) {
        if (/do not/.test(detail)) seen = detail;
        await sleep(10);
      }
      assert.match(seen, /rxe0.*rxe1.*MTU of (4096|2048) do not/);
      await linked(a, 1);
      assert.is(links(a)[0].detail, 'MTU 1024');
      const { verifiedBytes } = await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES));
      assert.is(verifiedBytes, BYTES);
      assert.is(hash(theirs.memory), hash(ours.memory));
      mtu('sw1', USUAL);
      await grows(a);
      assert.is((await a.write(peer, one(ours.id, 0, theirs.id, 0, BYTES))).verifiedBytes, BYTES);
    });
  } finally {
    mtu('sw1', USUAL);
  }
});

test.run();
