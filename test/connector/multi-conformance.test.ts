/** The suite for all connectors, over a store and hand-overs as one, in either order. */
import { LocalTransfer, MooncakeConnector, MooncakeStore, MooncakeStoreConnector, MultiConnector } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type Subject, type World, type WorldOptions } from './conformance.js';
import { slowStore } from './slow-store.js';

const BYTES = 1 << 20;

type Order = 'store first' | 'hand-over first';

function world(order: Order, loadAsync: boolean, { unchecked, abandons }: WorldOptions): World {
  const memory = new Uint8Array(BYTES);
  const store = new MooncakeStore({ segments: [{ name: 'objects', memory }], verify: !unchecked });
  const transfers: LocalTransfer[] = [];
  let delays = 0;
  return {
    connector() {
      const byRank = new Map<number, LocalTransfer>();
      const transfer = (rank: number) => {
        const own = byRank.get(rank) ?? new LocalTransfer();
        if (!byRank.has(rank)) transfers.push(own);
        byRank.set(rank, own);
        return own;
      };
      const parts = [
        new MooncakeConnector({ transfer, abortTimeoutMs: abandons ? 50 : 60_000 }),
        new MooncakeStoreConnector({
          peerTensorParallelSizes: [1, 2, 4],
          loadAsync,
          store: slowStore(store, () => 1 + (delays++ % 3)),
        }),
      ];
      return new MultiConnector(order === 'store first' ? parts.reverse() : parts);
    },
    evict: async () => {
      await store.removeAll({ force: true });
    },
    corrupt: async () => {
      for (let at = 0; at < BYTES; at += 61) memory[at] ^= 0x10;
    },
    async close() {
      await store.close();
      await Promise.all(transfers.map((transfer) => transfer.close()));
    },
  };
}

const SHARED = ['shared', 'tensorParallel', 'evict', 'corrupt', 'unchecked'] as const;
const SUBJECTS: [Order, boolean, Subject['capabilities']][] = [
  ['store first', false, SHARED],
  // A store in front may have a part of the prompt while the rest is still being saved, and then that part is taken.
  ['hand-over first', true, ['handover', 'tensorParallel']],
];
for (const [order, loadAsync, capabilities] of SUBJECTS) {
  const name = `${capabilities[0]}, ${order}, ${loadAsync ? 'asynchronous' : 'by layer'}`;
  conformance({ name, capabilities, world: async (options) => world(order, loadAsync, options) }, test);
}

test.run();
