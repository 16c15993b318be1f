/** The suite for all connectors, over hand-overs: within a process and over TCP, pulled and pushed. */
import { LocalTransfer, MooncakeConnector, TcpTransfer, type Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type World } from './conformance.js';

/** Ranks that one engine of the suite has at most. */
const RANKS = 4;

function world(mode: 'pull' | 'push', open: () => Promise<Transfer>): World {
  const transfers: Transfer[] = [];
  const closeAll = async () => {
    await Promise.all(transfers.splice(0).map((transfer) => transfer.close()));
  };
  return {
    async connector() {
      const own = await Promise.all(Array.from({ length: RANKS }, open));
      transfers.push(...own);
      return new MooncakeConnector({ transfer: (rank) => own[rank], mode, abortTimeoutMs: 300 });
    },
    kill: closeAll,
    async revive() {},
    close: closeAll,
  };
}

for (const mode of ['pull', 'push'] as const) {
  const capabilities = ['handover', 'tensorParallel', 'kill'] as const;
  conformance(
    { name: `${mode}, in process`, capabilities, world: async () => world(mode, async () => new LocalTransfer()) },
    test,
  );
  conformance({ name: `${mode}, TCP`, capabilities, world: async () => world(mode, () => TcpTransfer.listen()) }, test);
}

test.run();
