// Reads, writes and copies over every transfer: random batches against a naive copy, refused ranges, aborts, deadlines.
import fc from 'fast-check';
import type { Descriptor, Descriptors, Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, one, pattern } from '../support/descriptors.js';
import { KINDS, rejects, sleep, throws, withPair } from './support.js';

const MiB = 2 ** 20;

/** What a batch does, byte by byte. */
function naive(list: Descriptor[], sources: Uint8Array[], destinations: Uint8Array[]): void {
  for (const record of list) {
    for (let i = 0; i < record.length; i++) {
      const from = sources[record.sourceSegment];
      destinations[record.destinationSegment][record.destinationOffset + i] = from[record.sourceOffset + i];
    }
  }
}

const SIZES = [1, 1000, 70_000];

/** The records whose destinations no earlier one has: a batch must not write a byte twice. */
function disjoint(list: Descriptor[]): Descriptor[] {
  const kept: Descriptor[] = [];
  const overlaps = (a: Descriptor, b: Descriptor) =>
    a.destinationSegment === b.destinationSegment &&
    a.destinationOffset < b.destinationOffset + b.length &&
    b.destinationOffset < a.destinationOffset + a.length;
  for (const record of list) if (!kept.some((other) => overlaps(record, other))) kept.push(record);
  return kept;
}

/** Records between memories of SIZES on both sides. */
const record: fc.Arbitrary<Descriptor> = fc
  .record({
    sourceSegment: fc.nat(2),
    destinationSegment: fc.nat(2),
    from: fc.nat(),
    to: fc.nat(),
    length: fc.oneof(fc.nat(20), fc.nat(3000), fc.nat(70_000)),
  })
  .map(({ sourceSegment, destinationSegment, from, to, length }) => {
    const most = Math.min(length, SIZES[sourceSegment], SIZES[destinationSegment]);
    return {
      sourceSegment,
      destinationSegment,
      sourceOffset: from % (SIZES[sourceSegment] - most + 1),
      destinationOffset: to % (SIZES[destinationSegment] - most + 1),
      length: most,
    };
  });

for (const kind of KINDS) {
  test(`${kind.name}: random batches are what a naive copy makes`, () =>
    withPair(kind, async (a, b) => {
      const ours = SIZES.map((size) => new Uint8Array(size));
      const theirs = SIZES.map((size) => new Uint8Array(size));
      for (const memory of ours) a.register(memory);
      // The peer's numbers are the same as ours, so that a side mixed up shows in the bytes.
      for (const memory of theirs) b.register(memory);
      const peer = await a.connect(b.address);
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom('read', 'write', 'copy'),
          fc.constantFrom('full' as const, 'off' as const, { sampled: 2 }),
          fc.array(record, { maxLength: 40 }).map(disjoint),
          fc.nat(1e6),
          async (operation, verify, list, seed) => {
            SIZES.forEach((size, i) => {
              ours[i].set(pattern(size, seed + i));
              theirs[i].set(pattern(size, seed + 7 + i));
            });
            // Within one memory, ranges that a batch both reads and writes are nobody's promise: copy to the others.
            const safe = operation === 'copy' ? list.filter((d) => d.sourceSegment < d.destinationSegment) : list;
            const [oursWanted, theirsWanted] = [ours.map((m) => m.slice()), theirs.map((m) => m.slice())];
            if (operation === 'read') naive(safe, theirsWanted, oursWanted);
            if (operation === 'write') naive(safe, oursWanted, theirsWanted);
            if (operation === 'copy') naive(safe, oursWanted, oursWanted);
            const batch = descriptorsOf(safe);
            const move =
              operation === 'copy' ? a.copy(batch, { verify }) : peer[operation as 'read'](batch, { verify });
            const report = await move;
            assert.is(report.bytes, batch.totalBytes);
            assert.is(report.verifiedBytes === report.bytes || verify !== 'full', true);
            if (verify === 'off') assert.is(report.verifiedBytes, 0);
            for (let i = 0; i < SIZES.length; i++) {
              assert.ok(Buffer.from(ours[i]).equals(oursWanted[i]), `our segment ${i}`);
              assert.ok(Buffer.from(theirs[i]).equals(theirsWanted[i]), `their segment ${i}`);
            }
          },
        ),
        { numRuns: 150 },
      );
    }));

  test(`${kind.name}: batches larger than one frame, and many at a time`, () =>
    withPair(kind, async (a, b) => {
      const size = 8 * MiB;
      const [ours, theirs] = [new Uint8Array(size), pattern(size)];
      const here = a.register(ours);
      const there = b.register(theirs);
      const peer = await a.connect(b.address);
      // 40,000 records of 200 bytes, back to front.
      const count = 40_000;
      const list = Array.from({ length: count }, (_, i) => ({
        sourceSegment: there,
        destinationSegment: here,
        sourceOffset: i * 200,
        destinationOffset: (count - 1 - i) * 200,
        length: 200,
      }));
      const report = await peer.read(descriptorsOf(list));
      assert.is(report.bytes, 200 * count);
      assert.is(report.verifiedBytes, 200 * count);
      for (const { sourceOffset, destinationOffset } of list) {
        const [got, wanted] = [
          ours.subarray(destinationOffset, destinationOffset + 200),
          theirs.subarray(sourceOffset, sourceOffset + 200),
        ];
        if (Buffer.compare(got, wanted) !== 0) assert.unreachable(`record at ${sourceOffset}`);
      }
      list[30_001].sourceOffset = size;
      await rejects(peer.read(descriptorsOf(list)), 'ERR_SEGMENT', 'descriptors[30001].length');
      ours.fill(0);
      const step = size / 64;
      const moves = Array.from({ length: 64 }, (_, i) => peer.read(one(there, i * step, here, i * step, step)));
      await Promise.all(moves);
      assert.ok(Buffer.from(ours).equals(theirs));
      ours.set(pattern(size, 99));
      await Promise.all(Array.from({ length: 64 }, (_, i) => peer.write(one(here, i * step, there, i * step, step))));
      assert.ok(Buffer.from(theirs).equals(ours));
    }));

  test(`${kind.name}: shared memory, our own address, both ways at once`, () =>
    withPair(kind, async (a, b) => {
      const shared = new Uint8Array(new SharedArrayBuffer(3 * MiB));
      shared.set(pattern(shared.length));
      const memory = new Uint8Array(3 * MiB);
      const [here, other] = [a.register(shared), a.register(memory)];
      const self = await a.connect(a.address);
      assert.is(self.generation, a.generation);
      await self.read(one(here, 0, other, 0, shared.length));
      assert.ok(Buffer.from(memory).equals(shared));
      const theirs = new Uint8Array(new SharedArrayBuffer(6 * MiB));
      const there = b.register(theirs);
      const [ab, ba] = [await a.connect(b.address), await b.connect(a.address)];
      await Promise.all([
        ab.write(one(here, 0, there, 0, shared.length)),
        ba.read(one(other, 0, there, shared.length, shared.length)),
      ]);
      assert.ok(Buffer.from(theirs.slice(0, shared.length)).equals(Buffer.from(memory)));
      assert.ok(Buffer.from(theirs.slice(shared.length)).equals(Buffer.from(memory)));
    }));

  test(`${kind.name}: the caller may change his descriptors after the call`, () =>
    withPair(kind, async (a, b) => {
      const ours = new Uint8Array(100);
      const here = a.register(ours);
      const there = b.register(pattern(100));
      const peer = await a.connect(b.address);
      const batch = one(there, 0, here, 0, 100);
      const move = peer.read(batch);
      batch.bytes.fill(0xff, 32);
      assert.is((await move).bytes, 100);
      assert.equal(ours, pattern(100));
    }));

  test(`${kind.name}: ranges outside segments are refused, and nothing is written`, () =>
    withPair(kind, async (a, b) => {
      const ours = new Uint8Array(100);
      const theirs = pattern(100);
      const here = a.register(ours);
      const there = b.register(theirs, { access: 'read' });
      const peer = await a.connect(b.address);
      const cases: [Descriptors, string][] = [
        [one(there, 0, here, 0, 101), 'descriptors[0].length'],
        [one(there, 1, here, 0, 100), 'descriptors[0].length'],
        [one(there, 0, here, 1, 100), 'descriptors[0].length'],
        [one(there, 101, here, 0, 0), 'descriptors[0].sourceOffset'],
        [one(there, 0, here, 101, 0), 'descriptors[0].destinationOffset'],
        [one(there, 2 ** 53, here, 0, 1), 'descriptors[0].sourceOffset'],
        [one(there + 1, 0, here, 0, 1), 'descriptors[0].sourceSegment'],
        [one(there, 0, here + 1, 0, 1), 'descriptors[0].destinationSegment'],
        [one(0xffff_fffe, 0, here, 0, 1), 'descriptors[0].sourceSegment'],
      ];
      for (const [batch, argument] of cases) {
        await rejects(peer.read(batch), 'ERR_SEGMENT', argument);
        await rejects(a.copy(batch), 'ERR_SEGMENT');
      }
      // u64 offsets and lengths whose sum wraps around.
      const wrap = one(there, 50, here, 0, 1);
      new DataView(wrap.bytes.buffer).setBigUint64(56, 2n ** 64n - 50n, true);
      await rejects(peer.read(wrap), 'ERR_INVALID_ARGUMENT', 'descriptors').catch(() =>
        rejects(peer.read(wrap), 'ERR_SEGMENT', 'descriptors[0].length'),
      );
      const good = { sourceSegment: there, destinationSegment: here, sourceOffset: 0, destinationOffset: 0, length: 9 };
      await rejects(
        peer.read(descriptorsOf([good, { ...good, sourceOffset: 92 }])),
        'ERR_SEGMENT',
        'descriptors[1].length',
      );
      await rejects(peer.write(one(here, 0, there, 0, 1)), 'ERR_SEGMENT', 'descriptors[0].destinationSegment');
      assert.equal(ours, new Uint8Array(100));
      assert.equal(theirs, pattern(100));
      await peer.read(one(there, 0, here, 0, 100));
      assert.equal(ours, theirs, 'the peer serves afterwards');
      assert.is((await peer.read(descriptorsOf([]))).bytes, 0);
      assert.is((await peer.read(one(there, 100, here, 100, 0))).bytes, 0);
    }));

  test(`${kind.name}: abort and deadline end a move; afterwards nothing is written any more`, () =>
    withPair(kind, async (a, b) => {
      const size = 64 * MiB;
      const ours = new Uint8Array(size);
      const theirs = new Uint8Array(size).fill(7);
      const [here, there] = [a.register(ours), b.register(theirs)];
      const peer = await a.connect(b.address);
      const run: Record<string, (limits: { signal?: AbortSignal; timeoutMs?: number }) => Promise<unknown>> = {
        read: (limits) => peer.read(one(there, 0, here, 0, size), limits),
        write: (limits) => peer.write(one(here, 0, there, 0, size), limits),
      };
      for (const [name, move] of Object.entries(run)) {
        const [source, destination] = name === 'read' ? [theirs, ours] : [ours, theirs];
        for (const limit of ['signal', 'timeoutMs']) {
          source.fill(limit === 'signal' ? 7 : 8);
          destination.fill(0);
          const controller = new AbortController();
          const moving =
            limit === 'signal'
              ? rejects(move({ signal: controller.signal }), 'ERR_ABORTED')
              : rejects(move({ timeoutMs: 5 }), 'ERR_TIMEOUT');
          // Some of it has moved by then, and some has not: otherwise this proves nothing.
          if (limit === 'signal') {
            while (destination[0] === 0) await new Promise(setImmediate);
            controller.abort();
          }
          await moving;
          assert.is(destination[size - 1], 0, `${name} was over before it was ended`);
          destination.fill(9);
          await sleep(100);
          assert.ok(
            Buffer.from(destination).equals(Buffer.alloc(size, 9)),
            `${name} wrote after it was ended by ${limit}`,
          );
        }
      }
      await rejects(peer.read(one(there, 0, here, 0, 1), { signal: AbortSignal.abort() }), 'ERR_ABORTED');
      theirs.fill(3);
      await peer.read(one(there, 0, here, 0, size));
      assert.is(ours[size - 1], 3);
    }));

  test(`${kind.name}: unregister waits for moves under way and refuses new ones`, () =>
    withPair(kind, async (a, b) => {
      const size = 32 * MiB;
      const theirs = pattern(size).map((byte) => byte | 1);
      const ours = new Uint8Array(size);
      const [here, there] = [a.register(ours), b.register(theirs, { name: 'kv' })];
      const peer = await a.connect(b.address);
      assert.equal(await peer.segment('kv'), { id: there, name: 'kv', length: size });
      await rejects(peer.segment('nope'), 'ERR_SEGMENT', 'name');
      const reading = peer.read(one(there, 0, here, 0, size));
      while (ours[0] === 0) await new Promise(setImmediate);
      assert.is.not(ours[size - 1], theirs[size - 1], 'the move is over too soon for this test');
      const gone = a.unregister(here).then(() => assert.ok(Buffer.from(ours).equals(theirs), 'it waited'));
      throws(() => a.memory(here), 'ERR_SEGMENT', 'segment');
      await rejects(peer.read(one(there, 0, here, 0, 1)), 'ERR_SEGMENT', 'descriptors[0].destinationSegment');
      await Promise.all([reading, gone]);
      assert.ok(Buffer.from(ours).equals(theirs));
      await b.unregister(there);
      await rejects(b.unregister(there), 'ERR_SEGMENT', 'segment');
      await rejects(peer.segment('kv'), 'ERR_SEGMENT');
      const again = b.register(theirs, { name: 'kv' });
      assert.is.not(again, there, 'numbers are not used twice');
    }));

  test(`${kind.name}: what cannot be registered or moved is named`, async () => {
    for (const [options, argument] of [
      [{ timeoutMs: 0 }, 'options.timeoutMs'],
      [{ verify: 'some' }, 'options.verify'],
      [{ verify: { sampled: 0 } }, 'options.verify.sampled'],
    ] as const) {
      await rejects(
        Promise.resolve().then(() => kind.open(options as never)),
        'ERR_INVALID_ARGUMENT',
        argument,
      );
    }
    await withPair(kind, async (a) => {
      const gone = new Uint8Array(8);
      structuredClone(gone.buffer, { transfer: [gone.buffer] });
      const resizable = new Uint8Array(
        new (ArrayBuffer as never as new (n: number, o: object) => ArrayBuffer)(8, { maxByteLength: 16 }),
      );
      for (const memory of [gone, resizable, new Uint8Array(0), new Uint16Array(4), [], null, 'x']) {
        throws(() => a.register(memory as never), 'ERR_INVALID_ARGUMENT', 'memory');
      }
      const memory = new Uint8Array(8);
      const id = a.register(memory, { name: 'x' });
      assert.is(a.memory(id), memory);
      throws(() => a.register(memory, { name: 'x' }), 'ERR_INVALID_ARGUMENT', 'options.name');
      throws(() => a.register(memory, { name: '' }), 'ERR_INVALID_ARGUMENT', 'options.name');
      throws(() => a.register(memory, { access: 'write' as never }), 'ERR_INVALID_ARGUMENT', 'options.access');
      const second = a.register(memory);
      assert.is.not(second, id);
      const peer = await a.connect(a.address);
      await rejects(peer.read([] as never), 'ERR_INVALID_ARGUMENT', 'descriptors');
      const batch = one(id, 0, second, 0, 1);
      await rejects(peer.read(batch, { timeoutMs: -1 }), 'ERR_INVALID_ARGUMENT', 'timeoutMs');
      await rejects(peer.read(batch, { signal: 1 as never }), 'ERR_INVALID_ARGUMENT', 'signal');
      await rejects(peer.read(batch, { verify: 'maybe' as never }), 'ERR_INVALID_ARGUMENT', 'options.verify');
      // Memory that goes away after it was registered is a typed refusal, not an empty read.
      const leaving = new Uint8Array(8);
      const left = a.register(leaving);
      structuredClone(leaving.buffer, { transfer: [leaving.buffer] });
      // What the accelerator knows by its address stays: Node gives others a copy.
      assert.is(leaving.length, kind.name === 'tcp, accelerated' ? 8 : 0);
      if (leaving.length > 0) return;
      await rejects(peer.read(one(left, 0, id, 0, 8)), 'ERR_SEGMENT', 'descriptors[0].sourceSegment');
      throws(() => a.memory(left), 'ERR_SEGMENT', 'segment');
    });
  });
}

test('one batch in N is verified where one in N is asked for', async () => {
  for (const kind of KINDS) {
    const a: Transfer = await kind.open({ verify: { sampled: 3 } });
    const here = a.register(new Uint8Array(10));
    const there = a.register(new Uint8Array(10));
    const peer = await a.connect(a.address);
    const verified: number[] = [];
    for (let i = 0; i < 7; i++) verified.push((await peer.read(one(there, 0, here, 0, 10))).verifiedBytes);
    assert.equal(verified, [10, 0, 0, 10, 0, 0, 10]);
    assert.is((await peer.read(one(there, 0, here, 0, 10), { verify: 'full' })).verifiedBytes, 10);
    await a.close();
  }
});

test.run();
