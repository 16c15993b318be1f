// Readers on other threads while the writer changes the index: every answer is one that was true at some moment.
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { MooncakeError, PrefixIndex, PrefixReader, type PrefixReaderHandle } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hashesOf } from '../support/prefix-model.js';

const LENGTH = 300;
// a holds at least the first third of the first chain, b always the first half, c at least what both chains share. An
// insertion is one change; a removal goes block by block from the end, so any length in between is true at some moment.
const ONE = hashesOf('x'.repeat(LENGTH), 8);
const OTHER = hashesOf(`${'x'.repeat(40)}${'y'.repeat(LENGTH - 40)}`, 8);
// d and e have two-block chains of their own in turn, so that one's node is soon the other's.
const TURNS = { d: hashesOf('dd', 8), e: hashesOf('ee', 8) };
const LEGAL = { a: [100, LENGTH], b: [150, 150], other: [40, LENGTH] };

// Each reader goes on until it has so many answers; a machine may be slow, but not this slow.
const ENOUGH = 300;
const PATIENCE = 120_000;

/** Matches until told to stop, counting its rounds; returns what it saw that never was. */
function read(handle: PrefixReaderHandle, stop: Int32Array, rounds: Int32Array): string[] {
  const reader = PrefixReader.attach(handle);
  const wrong: string[] = [];
  while (Atomics.load(stop, 0) === 0) {
    try {
      const one = reader.match(ONE);
      const other = reader.match(OTHER);
      const answers = { a: one.length(0), b: one.length(1), other: other.length(2) };
      for (const [name, length] of Object.entries(answers)) {
        const [least, most] = LEGAL[name as keyof typeof LEGAL];
        if (length < least || length > most) wrong.push(`${name} ${length}`);
      }
      for (const [name, id] of [['d', 4] as const, ['e', 3] as const]) {
        for (let i = 0; i < 20; i++) {
          const length = reader.match(TURNS[name]).length(id);
          if (length !== 0) wrong.push(`${name}'s chain: ${length} of the other instance`);
        }
      }
      Atomics.add(rounds, 0, 1);
    } catch (error) {
      if (!(error instanceof MooncakeError) || error.code !== 'ERR_BUSY') throw error;
    }
  }
  return wrong;
}

if (!isMainThread) {
  parentPort?.postMessage(read(workerData.handle, workerData.stop, workerData.rounds));
} else {
  const shared = () => {
    const index = new PrefixIndex({ keyWidth: 8, shared: true });
    for (const name of ['a', 'b', 'c', 'd', 'e']) index.addInstance(name);
    return index;
  };

  test('readers never see half a change', async () => {
    const index = shared();
    index.insert('a', ONE);
    index.insert('b', ONE.subarray(0, 150 * 8));
    index.insert('c', OTHER.subarray(0, 40 * 8));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const rounds = [0, 1].map(() => new Int32Array(new SharedArrayBuffer(4)));
    const reports = rounds.map(
      (own) =>
        new Promise<string[]>((resolve, reject) => {
          const worker = new Worker(fileURLToPath(import.meta.url), {
            workerData: { handle: index.reader(), stop, rounds: own },
          });
          worker.once('message', resolve).once('error', reject);
        }),
    );
    const end = Date.now() + PATIENCE;
    const enough = () => rounds.every((own) => Atomics.load(own, 0) >= ENOUGH);
    for (let round = 0; !enough() && Date.now() < end; round++) {
      index.remove('a', ONE.subarray(100 * 8));
      index.insert('c', OTHER);
      // Other chains move the table and the free lists about.
      const noise = hashesOf(`n${round.toString(2)}${'z'.repeat(200)}`, 8);
      index.insert('a', noise);
      index.insert('a', ONE);
      index.remove('c', OTHER.subarray(40 * 8));
      index.remove('a', noise);
      index.touch(OTHER);
      // A branch out of a run that is not in the table yet, whatever its length; then all of it is entered.
      const at = 41 + (round % 50);
      const branch = hashesOf(`${'x'.repeat(at)}${'w'.repeat(50)}`, 8);
      index.insert('c', branch);
      index.has(branch.subarray(branch.length - 16, branch.length - 8));
      index.remove('c', branch.subarray(40 * 8));
      for (let i = 0; i < 100; i++) {
        for (const name of ['d', 'e'] as const) {
          index.insert(name, TURNS[name]);
          index.clear(name);
        }
      }
      if (round % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    Atomics.store(stop, 0, 1);
    for (const wrong of await Promise.all(reports)) assert.equal(wrong.slice(0, 5), []);
    assert.ok(enough(), `${rounds.join()} rounds`);
    assert.is(index.check(), 0);
  });

  test('a change between two steps of a match voids it', () => {
    const index = shared();
    const handle = index.reader({ room: 8 });
    const reader = PrefixReader.attach(handle);
    const { exports, u8 } = reader.core;
    const step = (hashes: Uint8Array, position: number) => {
      u8.set(hashes.slice(8 * position, 8 * position + 8).reverse(), reader.roomAt);
      return exports.prefixAdvance(handle.slot, reader.roomAt, position, 1);
    };
    const match = (between: () => void) => {
      index.insert('d', TURNS.d);
      const first = exports.prefixStart(handle.slot, 2, 0);
      const second = step(TURNS.d, first);
      assert.equal([first, second], [0, 1]);
      between();
      step(TURNS.d, second);
      return exports.prefixFinish(handle.slot);
    };
    assert.is(
      match(() => {}),
      2,
    );
    // The node that the match is in is given to another chain.
    const reused = match(() => {
      index.clear('d');
      index.insert('e', TURNS.e);
    });
    assert.ok(reused < 0, `${reused} blocks matched`);
    assert.is(
      match(() => index.has(TURNS.e.subarray(0, 8))),
      2,
    );
    assert.ok(match(() => index.touch(TURNS.d)) < 0);
  });

  test('a reader answers as the index does, and matches hashes that lie in its room', () => {
    const index = shared();
    index.insert('b', ONE);
    const reader = PrefixReader.attach(index.reader({ room: 32 * LENGTH }));
    assert.equal(reader.match(OTHER).entries(), index.match(OTHER).entries());
    const lengths = new Uint32Array(5);
    assert.is(reader.matchInto(ONE, lengths), LENGTH);
    assert.equal([...lengths], [0, LENGTH, 0, 0, 0]);
    reader.core.u8.set(ONE, reader.roomAt);
    assert.is(reader.matchHere(LENGTH).length('b'), LENGTH);
    const wide = new Uint8Array(32 * 2);
    wide.set(ONE.subarray(0, 8), 24);
    wide.set(ONE.subarray(8, 16), 56);
    reader.core.u8.set(wide, reader.roomAt);
    const match = reader.matchHere(2, 32);
    assert.equal([match.length('b'), match.approximate], [2, true]);
    index.addInstance('late');
    index.insert('late', ONE);
    assert.is(reader.match(ONE).length(5), LENGTH);
    for (const call of [
      () => reader.matchHere(LENGTH * 4 + 1),
      () => reader.match(ONE, { group: 16 }),
      () => PrefixReader.attach({} as never),
    ]) {
      assert.throws(call, (error: unknown) => (error as MooncakeError).code === 'ERR_INVALID_ARGUMENT');
    }
  });

  test("an instance that got another's id does not get its name", () => {
    const index = shared();
    const reader = PrefixReader.attach(index.reader());
    index.removeInstance('b');
    assert.is(index.addInstance('new'), 1);
    index.insert('new', ONE);
    index.insert('c', OTHER);
    const match = reader.match(ONE);
    assert.equal([match.length('b'), match.length(1), match.length('c')], [0, LENGTH, 40]);
    assert.equal([match.best()?.instance, match.best()?.name], [1, undefined]);
    const later = PrefixReader.attach(index.reader());
    assert.is(later.match(ONE).length('new'), LENGTH);
    index.removeInstance('new');
    index.addInstance('b');
    index.insert('b', ONE);
    assert.equal([later.match(ONE).length('b'), later.match(ONE).length('new')], [0, 0]);
  });

  test('a handle that no index made is refused', () => {
    const handle = shared().reader({ room: 64 });
    const wrong: object[] = [
      { memory: new WebAssembly.Memory({ initial: 2 }) },
      { memory: new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }) },
      { names: 'a' },
      { keyWidth: 5 },
      ...[Number.NaN, -16, 0, handle.slot + 8, 2 ** 31].map((slot) => ({ slot })),
      ...[Number.NaN, -1, '64', 2 ** 32].map((room) => ({ room })),
      ...[Number.NaN, -4, 2 ** 33].map((rows) => ({ rows })),
      ...[Number.NaN, 0, 2 ** 33].map((named) => ({ named })),
      { given: -1 },
    ];
    for (const fields of wrong) {
      assert.throws(
        () => PrefixReader.attach({ ...handle, ...fields } as never),
        (error: unknown) => (error as MooncakeError).code === 'ERR_INVALID_ARGUMENT',
      );
    }
    const reader = PrefixReader.attach(handle);
    for (const width of [0, 5, Number.NaN, 64]) {
      assert.throws(
        () => reader.matchHere(1, width as never),
        (error: unknown) => (error as MooncakeError).argument === 'width',
      );
    }
    assert.throws(
      () => shared().reader(null as never),
      (error: unknown) => (error as MooncakeError).argument === 'options',
    );
  });

  test.run();
}
