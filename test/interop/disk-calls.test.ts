/**
 * Calls about disks (disk-script.ts) to the stock master and to ours, each in its own process, with offload and promotion on.
 * Every answer must be the same but for those below, which are decisions (docs/compatibility.md).
 */
import { test } from 'uvu';
import { compareMasters, type Decisions } from './compare.js';
import { diskScript } from './disk-script.js';

const LEASE_MS = 300;
const MEMORY = 'memory 1000 state 3';
const DISK = 'localDisk 1000 at 127.0.0.1:9999 state 3';

/** By step: what ours answers, what stock answers. */
const DECISIONS: Decisions = {
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

test('both masters answer alike about disks, but where ours differs by decision', () =>
  compareMasters(diskScript, {
    decisions: DECISIONS,
    leaseMs: LEASE_MS,
    least: 100,
    flags: ['--enable_offload=true', '--promotion_on_hit=true'],
  }));

test.run();
