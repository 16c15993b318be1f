/** MooncakeStoreConnector over an embedded store: at once and slow, asynchronous and layer by layer. */
import { MooncakeStore, MooncakeStoreConnector, type StoreConnectorOptions } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type Subject, type World } from './conformance.js';
import { slowStore } from './slow-store.js';

const BYTES = 1 << 20;

function embedded(options: Partial<StoreConnectorOptions>, slow: boolean, unchecked: boolean): World {
  const memory = new Uint8Array(BYTES);
  const store = new MooncakeStore({ segments: [{ name: 'objects', memory }], verify: !unchecked });
  let delays = 0;
  return {
    connector: () =>
      new MooncakeStoreConnector({
        peerTensorParallelSizes: [1, 2, 4],
        ...options,
        store: slow ? slowStore(store, () => 1 + (delays++ % 3)) : store,
      }),
    evict: async () => {
      await store.removeAll({ force: true });
    },
    corrupt: async () => {
      for (let at = 0; at < BYTES; at += 61) memory[at] ^= 0x10;
    },
    count: async () => (await store.stats()).metadata.objects,
    close: () => store.close(),
  };
}

for (const loadAsync of [true, false]) {
  for (const slow of [false, true]) {
    const subject: Subject = {
      name: `embedded store, ${slow ? 'slow' : 'at once'}, ${loadAsync ? 'asynchronous' : 'by layer'}`,
      capabilities: ['shared', 'tensorParallel', 'evict', 'corrupt', 'unchecked'],
      world: async ({ unchecked }) => embedded({ loadAsync }, slow, unchecked),
    };
    conformance(subject, test);
  }
}

test.run();
