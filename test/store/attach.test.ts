import { Keys, LocalTransfer, MooncakeStore, OBJECTS, STATUS, TcpTransfer, type Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { descriptors } from './descriptors.js';
import { code, content, same } from './support.js';

const MiB = 2 ** 20;

interface Pair {
  owner: MooncakeStore;
  client: MooncakeStore;
  /** The client's transfer. */
  transfer: Transfer;
  ours: Transfer;
}

/** An owner and a client attached to it, over each kind of transfer. */
async function over(use: (pair: Pair, kind: string) => Promise<void>, options: object = {}): Promise<void> {
  for (const kind of ['local', 'tcp']) {
    const make = () => (kind === 'local' ? new LocalTransfer() : TcpTransfer.listen());
    const [ours, transfer] = [await make(), await make()];
    const owner = new MooncakeStore({ segments: '128MB', transfer: ours, ...options });
    owner.serve();
    const client = await MooncakeStore.attach({ transfer, address: ours.address, ...options });
    try {
      await use({ owner, client, transfer, ours }, kind);
    } finally {
      await client.close();
      await owner.close();
      await transfer.close();
      await ours.close();
    }
  }
}

test('an attached store does what the embedded one does', () =>
  over(async ({ owner, client }, kind) => {
    for (const size of [1, 4097, MiB, 20 * MiB + 3]) {
      const value = content(size, size);
      assert.is(await client.put(`c${size}`, value), true);
      assert.is(await client.put(`c${size}`, value), false);
      assert.ok(same(await owner.get(`c${size}`), value), `${kind}: owner reads ${size}`);
      await owner.put(`o${size}`, value);
      assert.ok(same(await client.get(`o${size}`), value), `${kind}: client reads ${size}`);
      assert.is(await client.getSize(`o${size}`), size);
      const view = await client.getView(`o${size}`);
      assert.ok(view && same(view.bytes, value) && view.verified && !view.zeroCopy && view.release());
    }
    assert.is(await client.get('absent'), undefined);
    assert.equal(
      [
        ...(await client.batchPut(
          ['x', 'y', 'x'],
          [1, 2, 3].map((n) => content(n, n)),
        )),
      ],
      [0, 0, -705],
    );
    const got = await client.batchGet(['y', 'n', 'x']);
    assert.equal(
      got.map((value) => value?.length),
      [2, undefined, 1],
    );
    assert.equal([...(await client.batchIsExist(['x', 'n']))], [1, 0]);
    await client.upsert('x', content(77, 1));
    assert.ok(same(await owner.get('x'), content(77, 1)));
    assert.is(await code(() => client.remove('x')), 'ERR_LEASED');
    assert.is(await client.remove('x', { force: true }), true);
    assert.is(await client.remove('x'), false);
    await client.put('re1', content(5, 1));
    await client.put('re2', content(5, 1));
    assert.is(await client.removeByRegex('^re[12]$'), 2);
    assert.is(await code(() => client.removeByRegex('(')), 'ERR_INVALID_ARGUMENT');
    assert.is((await client.segments())[0].name, (await owner.segments())[0].name);
    assert.ok((await client.removeAll({ force: true })) > 0);
    const { hits, misses, verifiedBytes, bytesGot, metadata } = await client.stats();
    assert.is(hits, 10);
    assert.is(misses.absent, 2);
    assert.is(verifiedBytes, bytesGot);
    assert.is(metadata.objects, 0);
  }));

test('descriptors between registered memory and objects, straight and in pieces', () =>
  over(async ({ owner, client, transfer }) => {
    const from = content(3 * MiB, 1);
    const to = new Uint8Array(3 * MiB);
    const [source, target] = [transfer.register(from), transfer.register(to)];
    const keys = Keys.from(['a', 'b', 'c']);
    const put = await client.openPut(keys, MiB, { stride: MiB });
    await put.write(descriptors([{ source: [source, MiB], destination: [OBJECTS, MiB], length: 2 * MiB }]));
    await put.write(
      descriptors([
        { source: [source, 1000], destination: [OBJECTS, 1000], length: MiB - 1000 },
        { source: [source, 0], destination: [OBJECTS, 0], length: 1000 },
      ]),
    );
    assert.equal([...(await put.commit())], [0, 0, 0]);
    assert.ok(same(await owner.get('b'), from.subarray(MiB, 2 * MiB)));
    const get = await client.openGet(Keys.from(['c', 'x', 'a']), { stride: MiB });
    await get.read(
      descriptors([
        { source: [OBJECTS, 100], destination: [target, 100], length: MiB - 100 },
        { source: [OBJECTS, 2 * MiB], destination: [target, 2 * MiB], length: MiB },
      ]),
    );
    await get.read(descriptors([{ source: [OBJECTS, 0], destination: [target, 0], length: 100 }]));
    assert.equal([...(await get.finish())], [0, STATUS.notFound, 0]);
    assert.ok(same(to.subarray(0, MiB), from.subarray(2 * MiB)));
    assert.ok(same(to.subarray(2 * MiB), from.subarray(0, MiB)));
    assert.ok(to.subarray(MiB, 2 * MiB).every((byte) => byte === 0));
    assert.is((await client.stats()).verifiedBytes, 2 * MiB);
  }));

test('puts of one client are not ended or taken back by another, and go when the client goes', () =>
  over(async ({ owner, client, transfer, ours }) => {
    const keys = Keys.from(['a', 'b']);
    const memory = content(200, 1);
    const segment = transfer.register(memory);
    const put = await client.openPut(keys, 100, { stride: 100 });
    const other = await MooncakeStore.attach({ transfer, address: ours.address });
    assert.is(await other.put('a', content(100, 2)), false);
    await other.close();
    await put.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: 200 }]));
    assert.equal([...(await put.commit())], [0, 0]);
    await client.openPut(Keys.from(['left']), 100, { stride: 100 });
    assert.is((await owner.stats()).metadata.incomplete, 1);
    await client.close();
    assert.is((await owner.stats()).metadata.incomplete, 0);
    assert.is(await owner.put('left', content(100, 3)), true);
    assert.is(await code(() => client.get('a')), 'ERR_CLOSED');
  }));

test('closing an attached store ends its writes before its puts are taken back', () =>
  over(async ({ owner, client, transfer }) => {
    const segment = transfer.register(new Uint8Array(48 * MiB).fill(5));
    const put = await client.openPut(Keys.from(['a']), 48 * MiB, { stride: 48 * MiB });
    let ended = '';
    const write = put
      .write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: 48 * MiB }]))
      .catch(({ code }) => {
        ended = code;
      });
    await new Promise((resolve) => setImmediate(resolve));
    await client.close();
    assert.ok(['ERR_ABORTED', 'ERR_CLOSED'].includes(ended), ended);
    await write;
    assert.is((await owner.stats()).metadata.incomplete, 0);
    assert.is(await code(() => put.commit()), 'ERR_CLOSED');
  }));

test('whatever a client sends, the store keeps its sense', () =>
  over(async ({ owner, transfer, ours }) => {
    await owner.put('good', content(1000, 1));
    const peer = await transfer.connect(ours.address);
    const hello = (await peer.call('mooncake-store', { call: 'hello', version: 1 })) as { client: string };
    const good = {
      client: hello.client,
      tenant: 'default',
      keys: new Uint8Array([97]),
      offsets: new Uint8Array([0, 0, 0, 0, 1, 0, 0, 0]),
      sizes: new Uint8Array(new Float64Array([10]).buffer),
      config: {},
    };
    const bad: unknown[] = [
      null,
      7,
      [],
      new Uint8Array(5),
      {},
      { call: 'hello' },
      { call: 'hello', version: 2 },
      { ...good, call: 'putStart', client: undefined },
      { ...good, call: 'putStart', client: '0'.repeat(32) },
      { ...good, call: 'constructor' },
      { ...good, call: 'putStart', tenant: 5 },
      { ...good, call: 'putStart', keys: 'a' },
      { ...good, call: 'putStart', offsets: new Uint8Array(3) },
      { ...good, call: 'putStart', offsets: new Uint8Array([0, 0, 0, 0, 2, 0, 0, 0]) },
      { ...good, call: 'putStart', offsets: new Uint8Array(0) },
      { ...good, call: 'putStart', sizes: new Uint8Array(16) },
      { ...good, call: 'putStart', config: null },
      { ...good, call: 'putStart', config: { replicas: -1 } },
      { ...good, call: 'putStart', config: { groups: 5 } },
      { ...good, call: 'putEnd' },
      { ...good, call: 'putEnd', sums: new Uint8Array(8), given: new Uint8Array(2) },
      { ...good, call: 'remove' },
      { ...good, call: 'removeByRegex', pattern: 5, force: true },
      { ...good, call: 'removeByRegex', pattern: '(', force: true },
      { ...good, call: 'removeAll' },
      { ...good, call: 'mountSegment' },
    ];
    for (const message of bad) {
      const refused = await code(() => peer.call('mooncake-store', message));
      assert.ok(
        ['ERR_PROTOCOL', 'ERR_INVALID_ARGUMENT', 'ERR_NOT_SUPPORTED', 'ERR_NOT_OWNER'].includes(refused),
        refused,
      );
    }
    // A client cannot end or take back what it did not start.
    const sums = { sums: new Uint8Array(8), given: new Uint8Array(1) };
    const put = await owner.openPut(Keys.from(['a']), 10, { stride: 10 });
    for (const call of ['putEnd', 'putRevoke', 'upsertEnd', 'upsertRevoke']) {
      const answer = (await peer.call('mooncake-store', { ...good, ...sums, call })) as Uint8Array;
      assert.ok(new Int32Array(answer.slice().buffer)[0] < 0, call);
    }
    await put.abort();
    const { metadata } = await owner.stats();
    assert.equal([metadata.objects, metadata.incomplete], [1, 0]);
    assert.ok(same(await owner.get('good'), content(1000, 1)));
  }));

test('a store may be served over another transfer than its own', async () => {
  const owner = new MooncakeStore({ segments: [{ name: 'first', length: '4MB' }] });
  const door = await TcpTransfer.listen();
  const transfer = await TcpTransfer.listen();
  const stop = owner.serve(door);
  const client = await MooncakeStore.attach({ transfer, address: door.address });
  await client.put('a', content(1000, 1));
  assert.ok(same(await owner.get('a'), content(1000, 1)));
  owner.mountSegment({ name: 'second', length: '8MB' });
  assert.is(await client.put('large', content(6 * MiB, 2)), true);
  assert.ok(same(await client.get('large'), content(6 * MiB, 2)));
  await owner.unmountSegment('second');
  assert.is(await client.get('large'), undefined);
  stop();
  assert.is(await code(() => client.put('b', content(1, 1))), 'ERR_NOT_SUPPORTED');
  assert.is(await client.get('a'), undefined);
  owner.serve(door);
  // The owner knows the client no more; the call after this one introduces it anew.
  assert.is(await code(() => client.put('b', content(1, 1))), 'ERR_NOT_OWNER');
  assert.is(await client.put('b', content(1, 1)), true);
  await client.close();
  await owner.close();
  await door.close();
  await transfer.close();
});

test('attaching where nothing is served, or nobody is, says so', async () => {
  const transfer = await TcpTransfer.listen();
  const other = await TcpTransfer.listen();
  assert.is(await code(() => MooncakeStore.attach({ transfer, address: other.address })), 'ERR_NOT_SUPPORTED');
  await other.close();
  const gone = MooncakeStore.attach({ transfer, address: other.address, timeoutMs: 2000 });
  assert.is(await code(() => gone), 'ERR_PEER');
  assert.is(await code(() => MooncakeStore.attach({ transfer, address: 5 as never })), 'ERR_INVALID_ARGUMENT');
  const none = { address: 'tcp://127.0.0.1:1' } as never;
  assert.is(await code(() => MooncakeStore.attach(none)), 'ERR_INVALID_ARGUMENT');
  await transfer.close();
});

test('an object that is corrupt where it lies goes when an attached reader finds it', async () => {
  const memory = new Uint8Array(4 * MiB);
  await over(
    async ({ owner, client }) => {
      await owner.put('a', content(MiB, 1));
      const info = await owner.getReplicas('a');
      memory[(info?.replicas[0].offset ?? 0) + 1000] ^= 1;
      assert.is(await client.get('a'), undefined);
      assert.is((await client.stats()).misses.corrupt, 1);
      assert.is(await owner.isExist('a'), false);
      assert.is(await client.put('a', content(MiB, 1)), true);
      assert.ok(same(await client.get('a'), content(MiB, 1)));
    },
    { segments: [{ memory }] },
  );
});

test('what only an owner can do is refused by name', () =>
  over(async ({ client }) => {
    assert.is(await code(() => client.serve()), 'ERR_NOT_SUPPORTED');
    assert.is(await code(() => client.mountSegment({ length: 1000 })), 'ERR_NOT_SUPPORTED');
    assert.is(await code(() => client.unmountSegment('x')), 'ERR_NOT_SUPPORTED');
  }));

test.run();
