// Memory that is taken away while a peer reads or writes it, and used for something else at once: no byte of the new use is
// ever seen by the peer, and no byte of the peer's ends up in it.
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { isFilled } from './bytes.js';
import { killAll, MIB, only, outcomes, start, started, withEngine } from './support.js';

const SIZE = 32 * MIB;
const ROUNDS = 6;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();
const ways = probe.accelerated
  ? [{ transports: ['tcp'] }, { transports: ['shm'] }]
  : [{ transports: ['tcp'], native: false }];

for (const options of ways) {
  for (const kind of ['allocated', 'registered']) {
    const what = `${options.transports}, ${kind} memory`;

    test(`${what}: a read ends with the old bytes or an error, never with the new ones`, () =>
      withEngine(options, async (engine) => {
        const child = await start({ engine: options, bytes: SIZE });
        const ours = await engine.allocate(SIZE);
        let ended = 0;
        for (let round = 0; round < ROUNDS; round++) {
          await child.ask('offer', kind);
          const peer = await engine.open(child.name);
          const { id } = peer.segments.find(({ name }) => name === 'recycled')!;
          ours.memory.fill(0);
          const reads = started([0, 1].map(() => engine.read(peer, one(id, 0, ours.id, 0, SIZE))));
          // In some rounds the first slices are there, in some none.
          for (let i = 0; i < round; i++) await new Promise(setImmediate);
          const recycled = child.ask('recycle');
          const codes = await outcomes('a read of what was taken away', reads);
          await recycled;
          only(codes, ['moved', 'ERR_SEGMENT'], what);
          assert.is(ours.memory.indexOf(0xee), -1, 'bytes of the new use were read');
          if (codes.every((code) => code === 'moved')) assert.ok(isFilled(ours.memory, 0x11));
          ended += codes.filter((code) => code !== 'moved').length;
          assert.equal(await outcomes('a later read', [engine.read(peer, one(id, 0, ours.id, 0, SIZE))]), [
            'ERR_SEGMENT',
          ]);
          assert.is(ours.memory.indexOf(0xee), -1, 'bytes of the new use were read');
        }
        if (ended === 0) console.log(`  NOTE ${what}: every read was faster than what took its memory away`);
        await child.kill();
      }));

    test(`${what}: a write ends before the memory is given back`, () =>
      withEngine(options, async (engine) => {
        const child = await start({ engine: options, bytes: SIZE });
        const ours = await engine.allocate(SIZE);
        ours.memory.fill(0x22);
        for (let round = 0; round < ROUNDS; round++) {
          await child.ask('offer', kind);
          const peer = await engine.open(child.name);
          const { id } = peer.segments.find(({ name }) => name === 'recycled')!;
          const writes = started([0, 1].map(() => engine.write(peer, one(ours.id, 0, id, 0, SIZE))));
          for (let i = 0; i < round; i++) await new Promise(setImmediate);
          const recycled = child.ask('recycle');
          only(await outcomes('a write to what was taken away', writes), ['moved', 'ERR_SEGMENT'], what);
          await recycled;
          assert.is(await child.ask('untouched'), true, 'bytes arrived in the memory after it was given back');
        }
        await child.kill();
      }));
  }
}

test.run();
