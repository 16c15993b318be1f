/** The suite for all connectors, over hand-overs: pushed within a process, pulled over TCP, pushed layer by layer. */
import { LocalTransfer, MooncakeConnector, TcpTransfer, type Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type World, type WorldOptions } from './conformance.js';

/** Ranks that one engine of the suite has at most. */
const RANKS = 4;

function world(mode: 'pull' | 'push' | 'layers', open: () => Promise<Transfer>, abandons: boolean): World {
  const transfers: Transfer[] = [];
  const closeAll = async () => {
    await Promise.all(transfers.splice(0).map((transfer) => transfer.close()));
  };
  return {
    async connector() {
      const own = await Promise.all(Array.from({ length: RANKS }, open));
      transfers.push(...own);
      return new MooncakeConnector({ transfer: (rank) => own[rank], mode, abortTimeoutMs: abandons ? 50 : 60_000 });
    },
    kill: closeAll,
    async revive() {},
    close: closeAll,
  };
}

const CAPABILITIES = ['handover', 'tensorParallel', 'kill'] as const;
// The other pairs of mode and transport are in pd*.test.ts.
const SUBJECTS = [
  ['push', 'in process', async () => new LocalTransfer(), CAPABILITIES],
  ['pull', 'TCP', () => TcpTransfer.listen(), CAPABILITIES],
  ['layers', 'TCP', () => TcpTransfer.listen(), [...CAPABILITIES, 'early']],
] as const;
for (const [mode, where, open, capabilities] of SUBJECTS) {
  const subject = { capabilities, world: async ({ abandons }: WorldOptions) => world(mode, open, abandons) };
  conformance({ name: `${mode}, ${where}`, ...subject }, test);
}

test.run();
