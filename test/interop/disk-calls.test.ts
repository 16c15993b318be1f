/**
 * Calls about disks (disk-script.ts) to the stock master and to ours, each in its own process, with offload and promotion on.
 * Every answer must be the same but for those below, which are decisions (docs/compatibility.md).
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { diskScript } from './disk-script.js';
import type { Answers } from './master-script.js';
import { type Kind, Master } from './masters.js';

const LEASE_MS = 300;
const MEMORY = 'memory 1000 state 3';
const DISK = 'localDisk 1000 at 127.0.0.1:9999 state 3';

/** By step: what ours answers, what stock answers. */
const DECISIONS: Record<string, { ours: unknown; stock: unknown; why: string }> = {
  'GetReplicaList: removed after offload': {
    ours: -704,
    stock: { ok: { replicas: [DISK], leaseMs: LEASE_MS, checksum: null } },
    why: 'what was removed while it was written does not come back',
  },
  'RemoveAll: everything': { ours: 6, stock: 7, why: 'the same: one less is there' },
  'GetReplicaList: failing not asked': {
    ours: { ok: { replicas: [MEMORY], leaseMs: LEASE_MS, checksum: 7 } },
    stock: { ok: { replicas: [DISK, MEMORY], leaseMs: LEASE_MS, checksum: 7 } },
    why: 'files that nobody asked for may have an older content',
  },
  'PromotionObjectHeartbeat: of what is gone': {
    ours: { ok: [] },
    stock: { ok: ['old 1000'] },
    why: 'nothing of it is left to promote',
  },
};

async function answersOf(kind: Kind): Promise<Answers> {
  const flags = ['--enable_offload=true', '--promotion_on_hit=true', `--default_kv_lease_ttl=${LEASE_MS}`];
  const master = await Master.start(kind, flags);
  const client = await master.connect();
  try {
    return await diskScript(client, LEASE_MS);
  } finally {
    client.close();
    await master.end();
  }
}

test('both masters answer alike about disks, but where ours differs by decision', async () => {
  const stock = await answersOf('stock');
  const ours = await answersOf('ours');
  assert.equal(Object.keys(ours), Object.keys(stock));
  assert.ok(Object.keys(ours).length > 100);
  for (const [step, answer] of Object.entries(ours)) {
    const decision = DECISIONS[step];
    assert.equal(answer, decision ? decision.ours : stock[step], `${step}: ours`);
    if (decision) assert.equal(stock[step], decision.stock, `${step}: stock`);
  }
  for (const step of Object.keys(DECISIONS)) assert.ok(step in ours, step);
});

test.run();
