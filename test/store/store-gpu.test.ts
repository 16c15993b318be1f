// Values straight from and into memory of another process's GPU, whichever store it is: on the simulated driver, whose memory
// nobody can touch but by a copy.
import { LocalTransfer, MooncakeError, MooncakeStore, TcpTransfer, type Transfer } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { pattern } from '../support/descriptors.js';
import { gpuTest, SECOND_GPU } from '../support/gpu.js';
import { GpuOwner } from '../support/gpu-owner.js';

const MIB = 2 ** 20;
const SEGMENT = 64 * MIB;

interface World {
  store: MooncakeStore;
  /** Whose bytes are the objects'. */
  memory: Uint8Array;
  close(): Promise<void>;
}

const worlds: Record<string, () => Promise<World>> = {
  embedded: async () => {
    const memory = new Uint8Array(SEGMENT);
    const transfer = new LocalTransfer();
    const store = new MooncakeStore({ transfer, segments: [{ name: 'objects', memory }] });
    return { store, memory, close: () => closeAll(store, transfer) };
  },
  'attached over TCP': async () => {
    const memory = new Uint8Array(SEGMENT);
    const theirs = await TcpTransfer.listen();
    const owner = new MooncakeStore({ transfer: theirs, segments: [{ name: 'objects', memory }] });
    owner.serve();
    const transfer = await TcpTransfer.listen();
    const store = await MooncakeStore.attach({ transfer, address: theirs.address });
    return { store, memory, close: () => closeAll(store, transfer, owner, theirs) };
  },
  'joined to a cluster': async () => {
    const memory = new Uint8Array(SEGMENT);
    const master = await MooncakeMaster.listen({ port: 0, admin: false });
    const address = `127.0.0.1:${master.ports.rpc}`;
    const lender = await MooncakeStore.connect({ master: address, segments: [{ name: 'objects', memory }] });
    const store = await MooncakeStore.connect({ master: address });
    return { store, memory, close: () => closeAll(store, lender, master) };
  },
};

async function closeAll(...all: { close(): Promise<unknown> }[]): Promise<void> {
  for (const one of all) await one.close();
}

/** With memory of a process's GPU, registered with the store's transfer. */
async function within(world: World, length: number, body: (gpu: GpuOwner, segment: number) => Promise<void>) {
  const gpu = await GpuOwner.start(length);
  try {
    const segment = world.store.transfer.register(gpu.memory);
    await body(gpu, segment);
    await world.store.transfer.unregister(segment);
  } finally {
    await world.close();
    await gpu.close();
  }
}

for (const [name, make] of Object.entries(worlds)) {
  gpuTest(test, `${name}: what is put from a GPU is what is got, and the other way round`, async () => {
    const world = await make();
    const length = 20 * MIB;
    await within(world, length, async (gpu, segment) => {
      const { store } = world;
      const bytes = pattern(length, 11);
      await gpu.write(0, bytes);
      assert.ok(await store.putFrom('one', { segment, offset: 777, length: 9 * MIB }));
      assert.is(Buffer.compare((await store.get('one'))!, bytes.subarray(777, 777 + 9 * MIB)), 0);
      assert.not.ok(await store.putFrom('one', { segment, offset: 0, length: 4 }), 'it is there already');
      const value = pattern(3 * MIB, 12);
      await store.put('two', value);
      assert.is(await store.getInto('two', { segment, offset: 5, length: 4 * MIB }), value.length);
      const expected = bytes.slice();
      expected.set(value, 5);
      assert.is(Buffer.compare(await gpu.read(), expected), 0, 'nothing beside it has changed');
      await store.upsertFrom('two', { segment, offset: 100, length: MIB });
      assert.is(Buffer.compare((await store.get('two'))!, expected.subarray(100, 100 + MIB)), 0);
    });
  });

  gpuTest(test, `${name}: many at once, and misses leave the GPU's memory as it is`, async () => {
    const world = await make();
    const block = 96 * 1024;
    const count = 100;
    await within(world, block * count, async (gpu, segment) => {
      const { store } = world;
      const bytes = pattern(block * count, 21);
      await gpu.write(0, bytes);
      const keys = Array.from({ length: count }, (_, i) => `block ${i}`);
      const ranges = keys.map((_, i) => ({ segment, offset: i * block, length: block }));
      assert.ok((await store.batchPutFrom(keys, ranges)).every((status) => status === 0));
      await store.remove(keys[7], { force: true });
      // In another order; one is absent, one has too little room.
      const into = keys.map((_, i) => ({ segment, offset: ((i + 1) % count) * block, length: i === 9 ? 10 : block }));
      const sizes = await store.batchGetInto(keys, into);
      const expected = bytes.slice();
      for (let i = 0; i < count; i++) {
        if (i === 7 || i === 9) assert.ok(sizes[i] < 0);
        else {
          assert.is(sizes[i], block);
          expected.set(bytes.subarray(i * block, (i + 1) * block), into[i].offset);
        }
      }
      assert.is(Buffer.compare(await gpu.read(), expected), 0);
    });
  });

  gpuTest(test, `${name}: bytes that have changed in the store are a miss`, async () => {
    const world = await make();
    await within(world, MIB, async (gpu, segment) => {
      const { store } = world;
      await gpu.write(0, pattern(MIB, 31));
      await store.putFrom('key', { segment, offset: 0, length: MIB });
      for (let at = 0; at < world.memory.length; at += 512) world.memory[at] ^= 1;
      assert.is(await store.getInto('key', { segment, offset: 0, length: MIB }), undefined);
    });
  });
}

gpuTest(test, 'ranges that leave the memory, and both kinds in one call, are refused', async () => {
  const world = await worlds.embedded();
  await within(world, MIB, async (_, segment) => {
    const { store } = world;
    const host = (store.transfer as Transfer).register(new Uint8Array(64));
    const codeOf = async (call: () => Promise<unknown>) => {
      const error = await call().catch((thrown) => thrown);
      return error instanceof MooncakeError ? error.code : error;
    };
    assert.is(await codeOf(() => store.putFrom('k', { segment, offset: MIB, length: 1 })), 'ERR_INVALID_ARGUMENT');
    assert.is(await codeOf(() => store.putFrom('k', { segment, offset: 0, length: 0 })), 'ERR_INVALID_ARGUMENT');
    assert.is(await codeOf(() => store.getInto('k', { segment, offset: 1, length: MIB })), 'ERR_INVALID_ARGUMENT');
    const both = [
      { segment, offset: 0, length: 64 },
      { segment: host, offset: 0, length: 64 },
    ];
    assert.is(await codeOf(() => store.batchPutFrom(['a', 'b'], both)), 'ERR_NOT_SUPPORTED');
    assert.throws(
      () => store.transfer.memory(segment),
      (error: MooncakeError) => error.code === 'ERR_SEGMENT',
    );
  });
});

gpuTest(
  test,
  'an owner that dies while its memory is registered takes nothing with it',
  async () => {
    const world = await worlds.embedded();
    await within(world, MIB, async (gpu, segment) => {
      const bytes = pattern(MIB, 41);
      await gpu.write(0, bytes);
      await gpu.close();
      // The driver keeps what is open here.
      await world.store.putFrom('key', { segment, offset: 0, length: MIB });
      assert.is(Buffer.compare((await world.store.get('key'))!, bytes), 0);
      const error = await Promise.resolve()
        .then(() => world.store.transfer.register({ ...gpu.memory, device: SECOND_GPU }))
        .catch((thrown) => thrown);
      assert.is(error.code, 'ERR_INVALID_ARGUMENT');
    });
  },
  true,
);

test.run();
