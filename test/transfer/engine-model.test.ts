// Random batches over each way that bytes can go, against a model: arrays, and copies within them one byte at a time.
import * as fc from 'fast-check';
import type { Descriptor, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptorsOf, pattern } from '../support/descriptors.js';
import { create, PAIRS, PLANES, type Plane } from '../support/engines.js';

const SEGMENTS = 3;
const SIZE = 20_000;

interface Way {
  name: string;
  a: Plane;
  b: Plane;
  transports?: string[];
}

const native = PLANES.find((plane) => plane.native);
const WAYS: Way[] = [
  ...PAIRS,
  ...(native
    ? ['shm', 'tcp'].map((name) => ({ name: `native, ${name}`, a: native, b: native, transports: [name] }))
    : []),
];

/** Records whose destinations do not overlap: each destination segment is cut in turn. */
const batches = fc
  .array(
    fc.record({
      source: fc.nat(SEGMENTS - 1),
      destination: fc.nat(SEGMENTS - 1),
      offset: fc.nat(SIZE - 1),
      gap: fc.nat(50),
      length: fc.oneof(fc.nat(64), fc.nat(3000)),
    }),
    { maxLength: 60 },
  )
  .map((wishes) => {
    const next = Array.from({ length: SEGMENTS }, () => 0);
    return wishes.flatMap(({ source, destination, offset, gap, length }) => {
      const at = next[destination] + gap;
      const bytes = Math.min(length, SIZE - at, SIZE - offset);
      if (bytes < 0) return [];
      next[destination] = at + bytes;
      return [{ source, destination, sourceOffset: offset, destinationOffset: at, length: bytes }];
    });
  });

async function fill(engine: TransferEngine, seed: number) {
  return Promise.all(
    Array.from({ length: SEGMENTS }, async (_, index) => {
      const segment = await engine.allocate(SIZE);
      segment.memory.set(pattern(SIZE, seed + index));
      return segment;
    }),
  );
}

for (const { name, a, b, transports } of WAYS) {
  test(`${name}: random reads, writes and copies do what the model does`, async () => {
    const [one, other] = [await create(a, { transports }), await create(b, { transports })];
    const ours = await fill(one, 1);
    const theirs = await fill(other, 100);
    const peer = await one.open(other.name);
    const byAddress = new Map(peer.segments.map(({ id, address }) => [address, id]));
    const ids = { ours: ours.map(({ id }) => id), theirs: theirs.map(({ address }) => byAddress.get(address)!) };
    const model = {
      ours: ours.map(({ memory }) => memory.slice()),
      theirs: theirs.map(({ memory }) => memory.slice()),
    };
    await fc.assert(
      fc.asyncProperty(fc.constantFrom('read', 'write', 'copy'), batches, async (op, records) => {
        const from = op === 'read' ? 'theirs' : 'ours';
        const to = op === 'write' ? 'theirs' : 'ours';
        // What a batch reads it must not write: for copies the last segment is the source of all others.
        const usable = records.filter((record) => op !== 'copy' || record.destination !== SEGMENTS - 1);
        const list: Descriptor[] = [];
        for (const record of usable) {
          const source = op === 'copy' ? SEGMENTS - 1 : record.source;
          const { destination, sourceOffset, destinationOffset, length } = record;
          list.push({
            sourceSegment: ids[from][source],
            destinationSegment: ids[to][destination],
            sourceOffset,
            destinationOffset,
            length,
          });
          for (let at = 0; at < length; at++) {
            model[to][destination][destinationOffset + at] = model[from][source][sourceOffset + at];
          }
        }
        const descriptors = descriptorsOf(list);
        const move = { read: () => one.read(peer, descriptors), write: () => one.write(peer, descriptors) };
        const report = await (op === 'copy' ? one.copy(descriptors) : move[op as 'read' | 'write']());
        assert.is(
          report.bytes,
          list.reduce((sum, { length }) => sum + length, 0),
        );
        for (const [index, { memory }] of ours.entries()) assert.is(Buffer.compare(memory, model.ours[index]), 0);
        for (const [index, { memory }] of theirs.entries()) assert.is(Buffer.compare(memory, model.theirs[index]), 0);
      }),
      { numRuns: 80 },
    );
    if (transports) {
      const used = new Set(
        one
          .statistics()
          .links.filter(({ bytes }) => bytes > 0)
          .map(({ transport }) => transport),
      );
      assert.ok(used.has(transports[0]), `went over ${[...used]}`);
    }
    await Promise.all([one.close(), other.close()]);
  });
}

test.run();
