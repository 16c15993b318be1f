/**
 * The disk tier on its own: what was put comes back, also after restarts, kills, damage to the files and a full disk; what is
 * doubtful is a miss. Both with the accelerator's files and with Node's.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { DiskTier, type DiskTierOptions, TransferEngine } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { contentOf, PER_BATCH } from './disk-content.js';

const MIB = 2 ** 20;
const PAGE = 4096;
const child = fileURLToPath(new URL('./disk-child.js', import.meta.url));

interface Place {
  folder: string;
  open(more?: Partial<DiskTierOptions>): Promise<DiskTier>;
  reopen(more?: Partial<DiskTierOptions>): Promise<DiskTier>;
  files(): string[];
}

const name = (n: number) => `object-${n}`;
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const put = (tier: DiskTier, list: number[]) => tier.put(list.map(name), list.map(contentOf));

/** Which of these come back right; one that comes back wrong fails the test. */
async function right(tier: DiskTier, list: number[]): Promise<number[]> {
  const values = await tier.get(list.map(name));
  return list.filter((n, i) => {
    if (values[i]) assert.ok(Buffer.from(contentOf(n)).equals(values[i]), `object ${n} is wrong`);
    return values[i] !== undefined;
  });
}

const errorOf = (code: string) => (error: { code: string }) => error.code === code;

for (const native of [true, false]) {
  const engine = await TransferEngine.create({ native });
  const test = suite(engine.accelerated ? 'with the accelerator' : 'in TypeScript');

  /** Runs with a folder of its own. */
  const it = (what: string, run: (place: Place) => Promise<void>) =>
    test(what, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'mooncake-tier-'));
      let tier: DiskTier | undefined;
      const place: Place = {
        folder,
        async open(more) {
          tier = await DiskTier.open({ folder, capacityBytes: 16 * MIB, bucketBytes: MIB, engine, ...more });
          return tier;
        },
        async reopen(more) {
          await tier?.close();
          return place.open(more);
        },
        files: () => readdirSync(folder).sort(),
      };
      try {
        await run(place);
      } finally {
        await tier?.close();
        rmSync(folder, { recursive: true, force: true });
      }
    });

  it('what was put comes back, also after a restart', async ({ open, reopen }) => {
    let tier = await open();
    const list = numbers(100);
    assert.ok((await put(tier, list)).every(Boolean));
    for (const _ of [1, 2]) {
      assert.equal(await right(tier, list), list);
      assert.equal(tier.has(['object-1', 'object-100']), [true, false]);
      assert.equal(await tier.get(['object-100']), [undefined]);
      assert.is(tier.stats().objects, 100);
      assert.equal(
        [...tier.entries()].map(({ key, size }) => `${Buffer.from(key)} ${size}`).sort(),
        list.map((n) => `${name(n)} ${contentOf(n).length}`).sort(),
      );
      tier = await reopen();
    }
  });

  it('a key is any bytes, a value any length, also none', async ({ open, reopen }) => {
    const keys = [Uint8Array.of(0), Uint8Array.of(255, 0, 254), new Uint8Array(65_535).fill(7), Buffer.from('é')];
    const values = [0, 1, 5000, 900_000].map((size) => new Uint8Array(size).fill(size & 255));
    const tier = await open();
    assert.equal(await tier.put(keys, values), [true, true, true, true]);
    assert.equal(await tier.get(keys), values);
    assert.equal(await (await reopen()).get(keys), values);
  });

  it('a target of the right size is filled; one of another size is a miss', async ({ open }) => {
    const tier = await open();
    const value = contentOf(3);
    await put(tier, [3]);
    const target = new Uint8Array(value.length);
    assert.ok((await tier.get([name(3)], [target]))[0] === target);
    assert.equal(target, value);
    assert.equal(await tier.get([name(3)], [new Uint8Array(value.length + 1)]), [undefined]);
  });

  it('the later of two values counts, and what was removed stays away, after restarts too', async ({
    open,
    reopen,
  }) => {
    let tier = await open();
    await tier.put(['a', 'b', 'c'], [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)]);
    await tier.put(['a'], [Uint8Array.of(9, 9)]);
    assert.equal(await tier.remove(['b', 'x']), [true, false]);
    for (const _ of [1, 2]) {
      assert.equal(await tier.get(['a', 'b', 'c']), [Uint8Array.of(9, 9), undefined, Uint8Array.of(3)]);
      tier = await reopen();
    }
    await tier.put(['b', 'b'], [Uint8Array.of(4), Uint8Array.of(5)]);
    tier = await reopen();
    assert.equal(await tier.get(['b']), [Uint8Array.of(5)]);
  });

  it('an earlier value does not come back when the bucket of the later one is evicted', async ({ open, reopen }) => {
    let tier = await open({ capacityBytes: 3 * MIB });
    const filler = new Uint8Array(MIB - 3 * PAGE);
    const kept = Uint8Array.of(1);
    await tier.put(['a', 'kept'], [Uint8Array.of(1), kept]);
    await tier.put(['f1'], [filler]);
    await tier.put(['a', 'f2'], [Uint8Array.of(2), filler]);
    for (let i = 0; i < 3; i++) {
      assert.equal(await tier.get(['kept']), [kept]);
      await tier.put([`g${i}`], [filler]);
    }
    tier = await reopen({ capacityBytes: 3 * MIB });
    assert.equal(await tier.get(['a', 'kept']), [undefined, kept]);
  });

  it('the bucket that was read longest ago goes when the capacity is used up', async ({ open, files, folder }) => {
    const gone: string[] = [];
    const onEvicted = (keys: Uint8Array[]) => gone.push(...keys.map((key) => Buffer.from(key).toString()));
    const tier = await open({ capacityBytes: 4 * MIB, onEvicted });
    const value = (n: number) => new Uint8Array(MIB / 2 - 3 * PAGE).fill(n);
    for (const n of numbers(6)) await tier.put([name(n)], [value(n)]);
    await tier.get([name(0)]);
    for (const n of [6, 7, 8]) await tier.put([name(n)], [value(n)]);
    assert.equal(gone, [name(2), name(3)]);
    assert.equal(
      tier.has(numbers(9).map(name)),
      numbers(9).map((n) => n !== 2 && n !== 3),
    );
    assert.equal(await tier.get([name(0), name(2)]), [value(0), undefined]);
    const { usedBytes, evictedBuckets, evictedObjects } = tier.stats();
    assert.equal([usedBytes, evictedBuckets, evictedObjects], [4 * MIB, 1, 2]);
    assert.is(
      files().reduce((total, file) => total + statSync(join(folder, file)).size, 0),
      4 * MIB,
    );
  });

  it('a bucket of which nothing is left is deleted, and so is everything', async ({ open, files }) => {
    const tier = await open();
    const value = new Uint8Array(MIB - 3 * PAGE);
    await tier.put(['a', 'b', 'c'], [value, value.fill(1), value.fill(2)]);
    assert.is(files().length, 3);
    await tier.remove(['a', 'b']);
    assert.is(files().length, 1);
    await tier.clear();
    assert.equal([files().length, tier.stats().usedBytes, tier.stats().objects], [0, 0, 0]);
    assert.equal(await tier.put(['a'], [Uint8Array.of(1)]), [true]);
  });

  it('an object larger than a bucket is not put, and the others are', async ({ open }) => {
    const tier = await open();
    const large = new Uint8Array(MIB - PAGE);
    assert.equal(await tier.put(['a', 'large', 'b'], [Uint8Array.of(1), large, Uint8Array.of(2)]), [true, false, true]);
  });

  it('wrong bytes are misses, and do not come back', async ({ open, reopen, files, folder }) => {
    let tier = await open();
    const list = numbers(40);
    await put(tier, list);
    await tier.close();
    for (const file of files()) {
      const path = join(folder, file);
      const bytes = readFileSync(path);
      // Beyond the heads of many records, and in a head or two.
      for (let at = 3 * PAGE + 100; at < bytes.length; at += 16 * PAGE) bytes[at] ^= 1;
      writeFileSync(path, bytes);
    }
    tier = await open();
    const good = await right(tier, list);
    assert.ok(good.length < list.length);
    assert.ok(tier.stats().corrupt > 0);
    tier = await reopen();
    assert.equal(await right(tier, list), good);
    assert.is(tier.stats().corrupt, 0);
    await put(tier, list);
    assert.equal(await right(tier, list), list);
  });

  it('files that are cut, empty, of others or of another length are no trouble', async ({ open, files, folder }) => {
    let tier = await open();
    const list = numbers(200);
    await put(tier, list);
    await tier.close();
    const [first, second, third] = files();
    truncateSync(join(folder, first), MIB / 2 + 77);
    truncateSync(join(folder, second), 0);
    writeFileSync(join(folder, third), Buffer.alloc(MIB, 0xff));
    writeFileSync(join(folder, 'notes.txt'), 'not ours');
    tier = await open();
    const good = await right(tier, list);
    assert.ok(good.length > 0 && good.length < list.length);
    assert.ok(files().includes('notes.txt'));
    await put(tier, list);
    assert.equal(await right(tier, list), list);
  });

  it('bytes of an earlier bucket on the same blocks are not taken for records', async ({ open, files, folder }) => {
    let tier = await open();
    await put(tier, numbers(20));
    await tier.close();
    const earlier = readFileSync(join(folder, files()[0]));
    rmSync(join(folder, files()[0]));
    tier = await open();
    await tier.put(['new'], [Uint8Array.of(1)]);
    await tier.close();
    const path = join(folder, files().at(-1)!);
    writeFileSync(path, Buffer.concat([readFileSync(path).subarray(0, 2 * PAGE), earlier.subarray(2 * PAGE)]));
    tier = await open();
    assert.equal(tier.has(['new', ...numbers(20).map(name)]).filter(Boolean).length, 1);
  });

  it('a disk on which there is no room refuses, and goes on', async ({ folder }) => {
    // A file system of its own would need root: this engine refuses as a full disk does.
    let room = 2;
    const full = {
      allocate: engine.allocate.bind(engine),
      copy: engine.copy.bind(engine),
      unregister: engine.unregister.bind(engine),
      openFile: async (path: string, options?: { length?: number }) => {
        if (options?.length && room-- <= 0) throw Object.assign(new Error('ENOSPC'), { code: 'ERR_PEER' });
        return engine.openFile(path, options);
      },
    };
    const tier = await DiskTier.open({ folder, capacityBytes: 16 * MIB, bucketBytes: MIB, engine: full });
    try {
      const value = new Uint8Array(MIB - 3 * PAGE);
      assert.equal(await tier.put(['a'], [value.fill(1)]), [true]);
      assert.equal(await tier.put(['b'], [value.fill(2)]), [true]);
      assert.equal(await tier.put(['c'], [value.fill(3)]), [false]);
      assert.equal(tier.has(['a', 'b', 'c']), [false, true, false]);
      room = 10;
      assert.equal(await tier.put(['c'], [value.fill(3)]), [true]);
      assert.equal(tier.has(['b', 'c']), [true, true]);
      assert.ok(tier.stats().failures > 0);
    } finally {
      await tier.close();
    }
  });

  it('a folder belongs to one at a time', async ({ open, reopen, folder }) => {
    await open();
    const again = () => DiskTier.open({ folder, capacityBytes: 16 * MIB, engine });
    assert.ok(
      errorOf('ERR_BUSY')(
        await again().then(
          () => ({ code: '' }),
          (error) => error,
        ),
      ),
    );
    await reopen();
  });

  it('what makes no sense is refused, and a closed tier says so', async ({ open, folder }) => {
    const refused = async (more: object) => {
      const options = { folder: join(folder, 'no'), capacityBytes: 16 * MIB, engine, ...more };
      const error = await DiskTier.open(options as DiskTierOptions).then(
        () => ({ code: '' }),
        (error) => error,
      );
      assert.is(error.code, 'ERR_INVALID_ARGUMENT', JSON.stringify(more));
    };
    for (const capacityBytes of [0, -1, 2 * MIB - 1, Number.NaN, '1GB']) await refused({ capacityBytes });
    for (const bucketBytes of [1, MIB - 1, MIB + 1, 9 * MIB]) await refused({ bucketBytes });
    await refused({ folder: 7 });
    const tier = await open();
    assert.throws(() => tier.put(['a'], []), errorOf('ERR_INVALID_ARGUMENT'));
    assert.throws(() => tier.put(['a'], ['text' as never]), errorOf('ERR_INVALID_ARGUMENT'));
    assert.throws(() => tier.get(['']), errorOf('ERR_INVALID_ARGUMENT'));
    await tier.close();
    await tier.close();
    for (const run of [() => tier.put(['a'], [Uint8Array.of(1)]), () => tier.get(['a']), () => tier.remove(['a'])]) {
      assert.throws(run, errorOf('ERR_CLOSED'));
    }
  });

  it('many at once: reads while buckets come and go are right or misses', async ({ open }) => {
    const tier = await open({ capacityBytes: 3 * MIB });
    const writes = (async () => {
      for (let round = 0; round < 20; round++) await put(tier, numbers(20, round * 20));
    })();
    let seen = 0;
    let done = false;
    writes.finally(() => {
      done = true;
    });
    while (!done) {
      seen += (await right(tier, numbers(400))).length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writes;
    assert.ok(seen > 0);
    assert.is(tier.stats().failures, 0);
    assert.is(tier.stats().corrupt, 0);
  });

  it('a model of puts, removals, reads and restarts', async ({ folder }) => {
    const commands = fc.array(
      fc.oneof(
        fc.record({ do: fc.constant('put'), key: fc.nat(8), size: fc.nat(30_000) }),
        fc.record({ do: fc.constant('remove'), key: fc.nat(8), size: fc.constant(0) }),
        fc.record({ do: fc.constant('restart'), key: fc.constant(0), size: fc.constant(0) }),
      ),
      { maxLength: 40 },
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(commands, async (list) => {
        const options = { folder: join(folder, `${run++}`), capacityBytes: 16 * MIB, bucketBytes: MIB, engine };
        const model = new Map<string, Uint8Array>();
        let tier = await DiskTier.open(options);
        let step = 0;
        for (const { do: what, key, size } of list) {
          const at = `key-${key}`;
          if (what === 'put') {
            const value = new Uint8Array(size).fill(++step);
            assert.equal(await tier.put([at], [value]), [true]);
            model.set(at, value);
          } else if (what === 'remove') {
            assert.equal(await tier.remove([at]), [model.delete(at)]);
          } else {
            await tier.close();
            tier = await DiskTier.open(options);
          }
          const keys = numbers(9).map((n) => `key-${n}`);
          assert.equal(
            await tier.get(keys),
            keys.map((one) => model.get(one)),
          );
        }
        await tier.close();
      }),
      { numRuns: 15 },
    );
  });

  test.after(() => engine.close());
  test.run();
}

const killed = suite('a process that is killed');

killed('loses nothing that was acknowledged, and serves nothing wrong', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-tier-'));
  try {
    for (let round = 0; round < 3; round++) {
      const running: ChildProcess = spawn(process.execPath, [child, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
      let acknowledged = -1;
      const lines = createInterface({ input: running.stdout! });
      lines.on('line', (line) => {
        acknowledged = Number(line);
        if (acknowledged === 12 + 5 * round) running.kill('SIGKILL');
      });
      await once(running, 'exit');
      const tier = await DiskTier.open({ folder, capacityBytes: 64 * MIB, bucketBytes: 4 * MIB });
      const list = numbers((acknowledged + 3) * PER_BATCH);
      const found = await right(tier, list);
      assert.equal(found.slice(0, (acknowledged + 1) * PER_BATCH), numbers((acknowledged + 1) * PER_BATCH));
      assert.is(tier.stats().corrupt, 0);
      await tier.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

killed.run();
