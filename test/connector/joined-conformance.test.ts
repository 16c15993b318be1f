/** MooncakeStoreConnector over a store that has joined a cluster, whose objects lie in another store's memory. */
import { MooncakeStore, MooncakeStoreConnector } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import { conformance, type World } from './conformance.js';

const BYTES = 1 << 20;

async function joined(loadAsync: boolean, unchecked: boolean): Promise<World> {
  const master = await MooncakeMaster.listen({ port: 0, admin: false });
  const address = `127.0.0.1:${master.ports.rpc}`;
  const memory = new Uint8Array(BYTES);
  const lender = await MooncakeStore.connect({ master: address, segments: [{ name: 'objects', memory }] });
  const store = await MooncakeStore.connect({ master: address, verify: !unchecked });
  return {
    connector: () => new MooncakeStoreConnector({ peerTensorParallelSizes: [1, 2, 4], loadAsync, store }),
    evict: async () => {
      await store.removeAll({ force: true });
    },
    corrupt: async () => {
      for (let at = 0; at < BYTES; at += 61) memory[at] ^= 0x10;
    },
    count: async () => master.service.stats().objects,
    close: async () => {
      await store.close();
      await lender.close();
      await master.close();
    },
  };
}

for (const loadAsync of [true, false]) {
  conformance(
    {
      name: `joined store, ${loadAsync ? 'asynchronous' : 'by layer'}`,
      capabilities: ['shared', 'tensorParallel', 'evict', 'corrupt', 'unchecked'],
      world: ({ unchecked }) => joined(loadAsync, unchecked),
    },
    test,
  );
}

test.run();
