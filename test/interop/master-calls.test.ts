/**
 * The same calls, one after the other, to the stock master and to ours (`mooncake-ts master`), each in its own process. Every
 * answer must be the same but for those below, which are decisions (docs/compatibility.md).
 */
import { test } from 'uvu';
import { compareMasters, type Decisions } from './compare.js';
import { script } from './master-script.js';

const LEASE_MS = 300;

/** By step: what ours answers, what stock answers. */
const DECISIONS: Decisions = {
  'MountSegment: size 2^63': { ours: -600, stock: { ok: null }, why: 'no process has such memory' },
  'MountSegment: base 2^63': { ours: -600, stock: { ok: null }, why: 'no process has such memory' },
  'MountSegment: no name': { ours: -600, stock: { ok: null }, why: 'nobody could reach it' },
  'MountSegment: again, of another client': { ours: -102, stock: { ok: null }, why: 'the id is of somebody else' },
  'MountSegment: overlapping, of one client': { ours: -102, stock: { ok: null }, why: 'two objects would share bytes' },
  'PutStart: 2^32 copies': { ours: -600, stock: 'ERR_PEER', why: 'stock runs out of memory and throws' },
  'GetReplicaList: while another size is written': {
    ours: { ok: { replicas: ['memory 1000 tcp state 3'], leaseMs: LEASE_MS, checksum: null } },
    stock: -703,
    why: 'content that is replaced in new space stays readable',
  },
  'GetReplicaList: after a revoke': {
    ours: { ok: { replicas: ['memory 2000 tcp state 3'], leaseMs: LEASE_MS, checksum: null } },
    stock: -704,
    why: 'the same: a replacement that fails leaves the old content',
  },
  'BatchExistKey: some': { ours: [1, 0, 0, 1], stock: [1, 0, 0, 0], why: 'the same' },
  'GetReplicaListByRegex: all': {
    ours: { ok: { k: ['memory 1000 tcp state 3'], u: ['memory 2000 tcp state 3'] } },
    stock: { ok: { k: ['memory 1000 tcp state 3'] } },
    why: 'the same',
  },
  'GetReplicaList: another tenant': {
    ours: -704,
    stock: { ok: { replicas: ['memory 1000 tcp state 3'], leaseMs: LEASE_MS, checksum: null } },
    why: 'tenants are name spaces also where no quotas are set',
  },
  'ExistKey: another tenant': { ours: { ok: false }, stock: { ok: true }, why: 'the same' },
  'RemoveAll: other tenant': { ours: 0, stock: 5, why: 'the same' },
  'RemoveAll: all': { ours: 7, stock: 0, why: 'the same; pinned objects and puts under way go as well when forced' },
  'GetReplicaListByRegex: look-ahead': { ours: -600, stock: { ok: {} }, why: 'patterns are RE2, in linear time' },
  'Remove: being written, forced': { ours: { ok: null }, stock: -703, why: 'forced is forced' },
  'CopyStart: to one segment twice': {
    ours: { ok: { source: 'memory 10 tcp state 3', targets: ['memory 10 tcp state 2'] } },
    stock: { ok: { source: 'memory 10 tcp state 3', targets: ['memory 10 tcp state 2', 'memory 10 tcp state 2'] } },
    why: 'copies are in different segments',
  },
  'Remove: while copying, forced': { ours: { ok: null }, stock: -703, why: 'forced is forced' },
  'CopyRevoke: after a forced removal': { ours: -704, stock: { ok: null }, why: 'the same' },
  'CreateCopyTask: being written': { ours: -1010, stock: 'a task', why: 'it could only fail' },
  'CreateMoveTask: being written': { ours: -1010, stock: 'a task', why: 'the same' },
  'UnmountSegment: of another client': { ours: -601, stock: { ok: null }, why: 'the segment is of somebody else' },
  'ExistKey: after an unmount by another': { ours: { ok: true }, stock: { ok: false }, why: 'the same' },
  'ExistKey: offloaded': { ours: { ok: false }, stock: { ok: true }, why: 'nobody is believed to have disks here' },
  'PutStart: preferred again': { ours: -705, stock: { ok: ['memory 10 tcp state 2'] }, why: 'the same' },
};

test('both masters answer alike, but where ours differs by decision', () =>
  compareMasters(script, { decisions: DECISIONS, leaseMs: LEASE_MS, least: 400 }));

test.run();
