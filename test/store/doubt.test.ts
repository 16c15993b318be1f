// Owners whose answers are wrong or late, puts that cross each other, and moments between one await and the next.
import { Keys, LocalTransfer, MooncakeError, MooncakeStore, OBJECTS, STATUS } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptors } from './descriptors.js';
import { type Message, proxied } from './proxy.js';
import { code, content, same, withStore } from './support.js';

const SIZE = 1000;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('a read is late from the very moment at which its room may be given away', async () => {
  const transfer = new LocalTransfer();
  const to = new Uint8Array(SIZE);
  const segment = transfer.register(to);
  let now = 1000;
  const options = { transfer, segments: [{ length: 1024 }], leaseTtlMs: 100, now: () => now, verify: false };
  await withStore(options, async (store) => {
    await store.put('a', content(SIZE, 1));
    const get = await store.openGet(Keys.from(['a']), { stride: SIZE });
    await store.remove('a', { force: true });
    now += 100;
    assert.is(await store.put('b', content(SIZE, 2)), true);
    await get.read(descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: SIZE }]));
    assert.not.ok(same(to, content(SIZE, 1)), 'the room has been given away');
    assert.equal([...(await get.finish())], [STATUS.leaseExpired]);
  });
  await transfer.close();
});

test('an answer that comes after the deadline changes nothing any more', () =>
  proxied(async ({ owner, client, transfer }) => {
    await owner.put('a', content(SIZE, 1));
    const connect = transfer.connect.bind(transfer);
    let late: Promise<unknown> = Promise.resolve();
    transfer.connect = (address, limits) => {
      const peer = connect(address, limits);
      late = wait(120).then(() => peer);
      return late as typeof peer;
    };
    assert.is(await client.get('a', { timeoutMs: 40 }), undefined);
    await late;
    await wait(20);
    const { hits, gets, misses } = await client.stats();
    assert.equal([hits, gets, misses.timeout], [0, 1, 1]);
    assert.ok(same(await client.get('a'), content(SIZE, 1)));
  }));

test('a put that was preempted while it ends does not end the put of the other', () =>
  proxied(
    async ({ owner, client, transfer, change }) => {
      const memory = content(SIZE, 1);
      const segment = transfer.register(memory);
      const write = descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: SIZE }]);
      const first = await client.openPut(Keys.from(['a']), SIZE, { stride: SIZE });
      await first.write(write);
      // The owner has given the key to the second put, and the client has not heard of it yet.
      let hear: () => void = () => {};
      const heard = new Promise<void>((resolve) => (hear = resolve));
      const begun = new Promise<void>((resolve) =>
        change(async (call, answer) => {
          const answered = await answer();
          if (call !== 'putStart') return answered;
          resolve();
          await heard;
          return answered;
        }),
      );
      const starting = client.openPut(Keys.from(['a']), SIZE, { stride: SIZE });
      starting.catch(() => {});
      await begun;
      const ending = first.commit();
      await wait(20);
      assert.is(await owner.get('a'), undefined, 'nothing was written to it');
      hear();
      const second = await starting;
      assert.ok((await ending)[0] < 0);
      memory.set(content(SIZE, 2));
      await second.write(write);
      assert.equal([...(await second.commit())], [0]);
      assert.ok(same(await client.get('a'), content(SIZE, 2)));
    },
    { putDiscardMs: 0, checksum: false },
  ));

test('a put does not wait for ever to learn that it was preempted', () =>
  proxied(
    async ({ client, change }) => {
      const first = await client.openPut(Keys.from(['a']), SIZE, { stride: SIZE });
      const end = new AbortController();
      const asked = new Promise<void>((resolve) =>
        change((call, answer) => {
          if (call !== 'putStart') return answer();
          resolve();
          return new Promise(() => {});
        }),
      );
      const second = client
        .openPut(Keys.from(['a']), SIZE, { stride: SIZE, signal: end.signal, timeoutMs: 2 ** 31 - 1 })
        .catch(({ code }) => code);
      await asked;
      assert.ok((await first.commit())[0] < 0);
      end.abort();
      assert.is(await second, 'ERR_ABORTED');
    },
    { timeoutMs: 300 },
  ));

test('closing waits for a put that is being started: its room is not given away before it writes', () =>
  proxied(
    async ({ owner, client, change }) => {
      let hear: () => void = () => {};
      const heard = new Promise<void>((resolve) => (hear = resolve));
      const begun = new Promise<void>((resolve) =>
        change(async (call, answer) => {
          const answered = await answer();
          if (call !== 'putStart') return answered;
          resolve();
          await heard;
          return answered;
        }),
      );
      const put = client.put('a', content(SIZE, 1)).catch(({ code }) => code);
      await begun;
      const closing = client.close();
      await Promise.race([closing, wait(50)]);
      const stored = await owner.put('b', content(SIZE, 2)).catch(({ code }) => code);
      hear();
      assert.not.equal(await put, true);
      await closing;
      if (stored === true) assert.ok(same(await owner.get('b'), content(SIZE, 2)), 'bytes of another object');
      assert.is((await owner.stats()).metadata.incomplete, 0);
      assert.is(await owner.put('a', content(10, 3)), stored !== true);
    },
    { segments: [{ length: 1024 }], verify: false, checksum: false },
  ));

test('an owner that stops serving gives no room away that a client may still be writing to', async () => {
  const transfer = new LocalTransfer();
  const mine = new LocalTransfer();
  const owner = new MooncakeStore({ transfer, segments: [{ length: 1024 }], verify: false });
  const stop = owner.serve();
  const client = await MooncakeStore.attach({ transfer: mine, address: transfer.address });
  const segment = mine.register(content(SIZE, 1));
  const late = await client.openPut(Keys.from(['a']), SIZE, { stride: SIZE });
  stop();
  const stored = await owner.put('b', content(SIZE, 2)).catch((error: MooncakeError) => error.code);
  await late.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: SIZE }])).catch(() => {});
  if (stored === true) assert.ok(same(await owner.get('b'), content(SIZE, 2)), 'bytes of another object');
  else assert.is(stored, 'ERR_NO_SPACE');
  await client.close();
  await owner.close();
  await mine.close();
  await transfer.close();
});

test('late bytes land nowhere, however short the room of a put is kept back', async () => {
  const transfer = new LocalTransfer();
  const segment = transfer.register(content(SIZE, 1));
  let now = 1000;
  const options = { transfer, segments: [{ length: 1024 }], putDiscardMs: 10, putReleaseMs: 100, now: () => now };
  await withStore({ ...options, verify: false }, async (store) => {
    const late = await store.openPut(Keys.from(['a']), SIZE, { stride: SIZE });
    now += 100;
    assert.is(await store.put('b', content(SIZE, 2)), true);
    const write = descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: SIZE }]);
    assert.is(await late.write(write).catch(({ code }) => code), 'ERR_TIMEOUT');
    assert.ok(same(await store.get('b'), content(SIZE, 2)));
    assert.ok((await late.commit())[0] < 0);
  });
  await transfer.close();
});

test('a put or get whose owner falls silent half-way ends by its own deadline', () =>
  proxied(
    async ({ owner, client, change }) => {
      for (const silent of ['putStart', 'putEnd', 'putRevoke']) {
        change((call, answer) => (call === silent ? new Promise(() => {}) : answer()));
        const abort = AbortSignal.timeout(100);
        const options = { timeoutMs: 200, signal: silent === 'putRevoke' ? abort : undefined };
        const value = content(silent === 'putRevoke' ? 48 * 2 ** 20 : SIZE, 1);
        const ended = await client.put(`a-${silent}`, value, options).then(String, ({ code }) => code);
        assert.ok(silent === 'putRevoke' || ended === 'ERR_TIMEOUT', `${silent}: ${ended}`);
      }
      change((_, answer) => answer());
      assert.is(await client.put('b', content(SIZE, 1)), true);
      assert.ok(same(await owner.get('b'), content(SIZE, 1)));
      // The store's own deadline is days away.
    },
    { timeoutMs: 2 ** 31 - 1 },
  ));

test('answers that make no sense are refused or misses, never bytes', () =>
  proxied(async ({ owner, client, change }) => {
    await owner.put('a', content(SIZE, 1));
    await owner.put('b', content(SIZE, 2));
    type Rows = unknown[][];
    const lies: [string, (answer: Message) => Message][] = [
      ['no replicas', (answer) => ({ ...answer, rows: [[]] })],
      [
        'a replica of another size',
        (answer) => ({ ...answer, rows: [[[...(answer.rows as Rows[])[0][0].slice(0, 4), 5]]] }),
      ],
      ['a replica beyond the segment', (answer) => ({ ...answer, rows: [[[1, false, 0, 2 ** 40, 10]]] })],
      ['more answers than keys', (answer) => ({ ...answer, rows: [...(answer.rows as Rows), 1] })],
      ['a status that is none', (answer) => ({ ...answer, statuses: new Uint8Array([7, 0, 0, 0]), rows: ['x'] })],
    ];
    for (const [what, lie] of lies) {
      change(async (call, answer) => (call === 'putStart' ? lie((await answer()) as Message) : answer()));
      assert.is(await client.put(`p-${what}`, content(SIZE, 3)).catch(({ code }) => code), 'ERR_PROTOCOL', what);
      assert.is(await owner.isExist(`p-${what}`), false, what);
    }
    const info = (size: unknown, sum: unknown, lease: unknown) => (answer: Message) => {
      const [[replicas]] = answer.rows as [[unknown]];
      return { ...answer, rows: [[replicas, size, sum, lease]] };
    };
    const more: [string, (answer: Message) => Message][] = [
      ['a larger size', info(2 * SIZE, null, 1000)],
      ['a smaller size', info(10, null, 1000)],
      ['a sum that is no integer', info(SIZE, 1.5, 1000)],
      ['a sum that is not a number', info(SIZE, Number.NaN, 1000)],
      ['a lease that is not a number', info(SIZE, null, Number.NaN)],
      ['a status that is none', (answer) => ({ ...answer, statuses: new Uint8Array([7, 0, 0, 0]), rows: ['x'] })],
    ];
    for (const [what, lie] of more) {
      change(async (call, answer) =>
        call === 'getReplicas' || call === 'peek' ? lie((await answer()) as Message) : answer(),
      );
      assert.is(await client.get('a'), undefined, what);
      const size = await client.getSize('a').catch(() => undefined);
      assert.ok(size === undefined || !what.includes('status'), what);
    }
    const { hits, misses } = await client.stats();
    assert.equal([hits, misses['peer-lost']], [0, more.length]);
    change((_, answer) => answer());
    assert.ok(same(await client.get('a'), content(SIZE, 1)));
  }));

test('a segment of the same name that was mounted since is another', () =>
  proxied(
    async ({ owner, client, change }) => {
      const remount = (in_: string) =>
        change(async (call, answer) => {
          const answered = await answer();
          if (call !== in_) return answered;
          await owner.unmountSegment('n');
          owner.mountSegment({ name: 'n', memory });
          return answered;
        });
      const memory = new Uint8Array(4096).fill(9);
      await owner.put('a', content(SIZE, 1));
      remount('getReplicas');
      assert.is(await client.get('a'), undefined);
      remount('putStart');
      assert.is(await client.put('b', content(SIZE, 2)).catch(({ code }) => code), 'ERR_SEGMENT');
      assert.ok(
        memory.every((byte) => byte === 9),
        'nothing was written',
      );
      change((_, answer) => answer());
      assert.is(await client.put('b', content(SIZE, 2)), true);
      assert.ok(same(await client.get('b'), content(SIZE, 2)));
    },
    { segments: [{ name: 'n', length: 4096 }], checksum: false },
  ));

test('memory that grows or goes while it is put or filled harms nobody', async () => {
  type Resizable = ArrayBuffer & { resize?(bytes: number): void };
  const resizable = (bytes: number) =>
    new (ArrayBuffer as new (bytes: number, options: object) => Resizable)(bytes, { maxByteLength: 4 * bytes });
  await withStore({ segments: [{ length: 4096 }], alignment: 1, verify: false }, async (store) => {
    for (let i = 0; i < 4; i++) await store.put(`${i}`, content(SIZE, i), { hardPin: i !== 1 });
    // The only room is between two others.
    await store.remove('1');
    const grown = resizable(SIZE);
    const put = store.put('1', new Uint8Array(grown)).catch(({ code }) => code);
    grown.resize?.(3 * SIZE);
    const ended = await put;
    for (const i of [0, 2, 3]) assert.ok(same(await store.get(`${i}`), content(SIZE, i)), `neighbour ${i}`);
    // Where nothing can be resized, nothing can go wrong.
    assert.is(ended, grown.resize ? 'ERR_INVALID_ARGUMENT' : true);
  });
  await withStore({}, async (store) => {
    const value = content(40 * 2 ** 20, 1);
    await store.put('a', value);
    const gone = new Uint8Array(value.length);
    const get = store.getInto('a', gone).catch(({ code }) => code);
    await new Promise((resolve) => setImmediate(resolve));
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    assert.is(await get, 'ERR_SEGMENT');
    assert.is((await store.stats()).hits, 0);
  });
});

test('an owner that is overloaded makes gets miss', () =>
  proxied(async ({ owner, client, change }) => {
    await owner.put('a', content(SIZE, 1));
    for (const refusal of ['ERR_QUEUE_FULL', 'ERR_WORKER', 'ERR_OUT_OF_MEMORY'] as const) {
      change((call, answer) => {
        if (call === 'getReplicas') throw new MooncakeError(refusal, 'not now');
        return answer();
      });
      assert.is(await client.get('a'), undefined, refusal);
    }
    assert.is((await client.stats()).misses['peer-lost'], 3);
  }));

test('a transfer through which a store was served may be closed; the store goes on', async () => {
  const door = new LocalTransfer();
  await withStore({}, async (store) => {
    const stop = store.serve(door);
    stop();
    await door.close();
    store.mountSegment({ name: 'more', length: '1MB' });
    assert.is(await store.put('a', content(SIZE, 1)), true);
    await store.unmountSegment('more');
    const again = new LocalTransfer();
    store.serve(again)();
    assert.is(await code(async () => again.memory(0)), 'ERR_SEGMENT', 'nobody reaches the segments after the end');
    store.serve(again);
    await again.close();
    store.mountSegment({ name: 'more', length: '1MB' });
  });
});

test('what a reader found corrupt goes, not what was stored in its place since', async () => {
  const memory = new Uint8Array(2 ** 20);
  await withStore({ segments: [{ memory }] }, async (store) => {
    await store.put('a', content(SIZE, 1));
    const info = await store.getReplicas('a');
    const get = await store.openGet(Keys.from(['a']), { stride: SIZE });
    memory[(info?.replicas[0].offset ?? 0) + 7] ^= 1;
    const segment = store.transfer.register(new Uint8Array(SIZE));
    await get.read(descriptors([{ source: [OBJECTS, 0], destination: [segment, 0], length: SIZE }]));
    await store.upsert('a', content(SIZE, 2));
    assert.equal([...(await get.finish())], [STATUS.checksumMismatch]);
    assert.ok(same(await store.get('a'), content(SIZE, 2)));
  });
});

test('the size that a get expects is checked by name', () =>
  withStore({}, async (store) => {
    await store.put('a', content(SIZE, 1));
    for (const size of [0, -1, 1.5, '1000', Number.NaN]) {
      assert.is(await code(() => store.get('a', { size: size as number })), 'ERR_INVALID_ARGUMENT');
    }
    assert.is(await store.get('a', { size: SIZE - 1 }), undefined);
    assert.ok(same(await store.get('a', { size: SIZE }), content(SIZE, 1)));
  }));

test.run();
