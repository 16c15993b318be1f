/**
 * What master and clients of Mooncake 0.3.13 say to each other: 64 methods. Source: mooncake-store's rpc_types.h, replica.h,
 * types.h and rpc_service.h; type codes checked against the stock master (test/rpc/schemas.test.ts). Names of fields are
 * ours, their order and shapes are the wire's.
 */
import { packed, statuses, truths } from '../batches.js';
import { method } from '../method.js';
import {
  bool,
  bytes,
  expected,
  i32,
  i64,
  map,
  nothing,
  optional,
  struct,
  text,
  u8,
  u32,
  u64,
  uuid,
  variant,
  vector,
} from '../types.js';

const names = vector(text);
const done = expected(nothing);
const allDone = statuses;

const buffer = struct({ size: u64, address: u64, protocol: text, endpoint: text });

/** Where one copy of an object is. `state`: 1 initialized, 2 processing, 3 complete, 4 removed, 5 failed. */
export const replica = struct({
  id: u64,
  descriptor: variant({
    memory: struct({ buffer }),
    nof: struct({ buffer }),
    disk: struct({ path: text, size: u64 }),
    localDisk: struct({ client: uuid, size: u64, endpoint: text }),
    dfs: struct({ path: text, offset: u64, size: u64, aligned: u64, shard: i32 }),
  }),
  state: i32,
});

const replicas = vector(replica);

export const segment = struct({
  id: uuid,
  name: text,
  base: u64,
  size: u64,
  endpoint: text,
  protocol: text,
  hostId: text,
});

const nofSegment = struct({ id: uuid, name: text, base: u64, size: u64, endpoint: text });

export const replicateConfig = struct({
  replicas: u64,
  nofReplicas: u64,
  dfsReplicas: u64,
  /** 0 preserve, 1 enable, 2 disable. */
  softPin: u8,
  softPinTtlMs: optional(u64),
  hardPin: bool,
  preferredSegments: names,
  /** Of older clients: one name, or empty. */
  preferredSegment: text,
  preferredNofSegments: names,
  preferSameNode: bool,
  dataType: u8,
  hostId: text,
  groups: optional(names),
});

export const objectEnd = struct({ key: bytes, checksum: optional(u64) });
const found = struct({ replicas, leaseMs: u64, checksum: optional(u64) });
const offload = struct({ tenant: text, key: bytes, size: i64 });
const bucketEntry = struct({ bucket: i64, offset: i64, keySize: i64, dataSize: i64, endpoint: text });
const copy = struct({ source: replica, targets: replicas });
const move = struct({ source: replica, target: optional(replica) });
const promotion = struct({ target: replica });
const taskState = struct({
  id: uuid,
  type: i32,
  state: i32,
  createdMs: i64,
  updatedMs: i64,
  client: uuid,
  message: text,
});
const task = struct({ id: uuid, type: i32, payload: text, createdMs: i64, maxRetries: u32 });
const taskEnd = struct({ id: uuid, state: i32, message: text });
const nofOwner = struct({ segment: uuid, client: uuid });
const ping = struct({ view: i64, clientState: i32 });
const storage = struct({ fsdir: text, diskEviction: bool, quota: u64 });

const key = { key: bytes, tenant: text };
const keys = { keys: packed, tenant: text };
const clientKey = { client: uuid, key: bytes, tenant: text };
const putStart = { client: uuid, key: bytes, size: u64, config: replicateConfig, tenant: text };
const putEnd = { client: uuid, object: objectEnd, replicaType: i32, tenant: text };
const putRevoke = { client: uuid, key: bytes, replicaType: i32, tenant: text };
const batchPutStart = { client: uuid, keys: packed, sizes: vector(u64), config: replicateConfig, tenant: text };
const dynamic = { client: uuid, key: bytes, tenant: text, task: uuid, epoch: u64 };

export const METHODS = {
  ExistKey: method('ExistKey', key, expected(bool)),
  BatchExistKey: method('BatchExistKey', keys, truths),
  BatchQueryIp: method('BatchQueryIp', { clients: vector(uuid) }, expected(map(uuid, names))),
  BatchReplicaClear: method('BatchReplicaClear', { keys: packed, client: uuid, segment: text }, expected(packed)),
  GetReplicaListByRegex: method(
    'GetReplicaListByRegex',
    { pattern: text, tenant: text },
    expected(map(bytes, replicas)),
  ),
  GetReplicaList: method('GetReplicaList', key, expected(found)),
  BatchGetReplicaList: method('BatchGetReplicaList', keys, vector(expected(found))),
  PutStart: method('PutStart', putStart, expected(replicas)),
  PutEnd: method('PutEnd', putEnd, done),
  PutRevoke: method('PutRevoke', putRevoke, done),
  BatchPutStart: method('BatchPutStart', batchPutStart, vector(expected(replicas))),
  BatchPutEnd: method(
    'BatchPutEnd',
    { client: uuid, objects: vector(objectEnd), replicaType: i32, tenant: text },
    allDone,
  ),
  BatchPutRevoke: method('BatchPutRevoke', { client: uuid, keys: packed, replicaType: i32, tenant: text }, allDone),
  UpsertStart: method('UpsertStart', putStart, expected(replicas)),
  UpsertEnd: method('UpsertEnd', putEnd, done),
  UpsertRevoke: method('UpsertRevoke', putRevoke, done),
  BatchUpsertStart: method('BatchUpsertStart', batchPutStart, vector(expected(replicas))),
  BatchUpsertEnd: method('BatchUpsertEnd', { client: uuid, objects: vector(objectEnd), tenant: text }, allDone),
  BatchUpsertRevoke: method('BatchUpsertRevoke', { client: uuid, keys: packed, tenant: text }, allDone),
  Remove: method('Remove', { key: bytes, force: bool, tenant: text }, done),
  RemoveByRegex: method('RemoveByRegex', { pattern: text, force: bool, tenant: text }, expected(i64)),
  RemoveAll: method('RemoveAll', { force: bool, tenant: text }, i64),
  BatchRemove: method('BatchRemove', { keys: packed, force: bool, tenant: text }, allDone),
  MountSegment: method('MountSegment', { segment, client: uuid }, done),
  MountNoFSegment: method('MountNoFSegment', { segment: nofSegment, client: uuid }, done),
  ReMountSegment: method('ReMountSegment', { segments: vector(segment), client: uuid }, done),
  ReMountNoFSegment: method('ReMountNoFSegment', { segments: vector(nofSegment), client: uuid }, done),
  UnmountSegment: method('UnmountSegment', { segment: uuid, client: uuid }, done),
  GracefulUnmountSegment: method('GracefulUnmountSegment', { segment: uuid, client: uuid, graceMs: u64 }, done),
  UnmountNoFSegment: method('UnmountNoFSegment', { segment: uuid, client: uuid }, done),
  GetAllNoFSegments: method('GetAllNoFSegments', {}, expected(vector(nofSegment))),
  GetNoFSegmentsByName: method('GetNoFSegmentsByName', { name: text }, expected(vector(nofOwner))),
  Ping: method('Ping', { client: uuid }, expected(ping)),
  GetFsdir: method('GetFsdir', {}, expected(text)),
  QuerySegmentStatus: method('QuerySegmentStatus', { name: text }, expected(i32)),
  QuerySegmentStatusById: method('QuerySegmentStatusById', { segment: uuid }, expected(i32)),
  GetStorageConfig: method('GetStorageConfig', {}, expected(storage)),
  ServiceReady: method('ServiceReady', {}, expected(text)),
  MountLocalDiskSegment: method('MountLocalDiskSegment', { client: uuid, offload: bool }, done),
  UnmountLocalDiskSegment: method('UnmountLocalDiskSegment', { client: uuid }, done),
  OffloadObjectHeartbeat: method('OffloadObjectHeartbeat', { client: uuid, offload: bool }, expected(vector(offload))),
  ReportSsdCapacity: method('ReportSsdCapacity', { client: uuid, bytes: i64 }, done),
  NotifyOffloadSuccess: method(
    'NotifyOffloadSuccess',
    { client: uuid, objects: vector(offload), entries: vector(bucketEntry) },
    done,
  ),
  PromotionObjectHeartbeat: method('PromotionObjectHeartbeat', { client: uuid }, expected(vector(offload))),
  PromotionAllocStart: method(
    'PromotionAllocStart',
    { client: uuid, key: bytes, tenant: text, size: u64, preferredSegments: names },
    expected(promotion),
  ),
  NotifyPromotionSuccess: method('NotifyPromotionSuccess', clientKey, done),
  NotifyPromotionFailure: method('NotifyPromotionFailure', clientKey, done),
  CopyStart: method(
    'CopyStart',
    { client: uuid, key: bytes, tenant: text, source: text, targets: names },
    expected(copy),
  ),
  DynamicReplicaCopyStart: method(
    'DynamicReplicaCopyStart',
    { client: uuid, key: bytes, tenant: text, source: text, targets: names, task: uuid, epoch: u64 },
    expected(copy),
  ),
  CopyEnd: method('CopyEnd', clientKey, done),
  DynamicReplicaCopyEnd: method('DynamicReplicaCopyEnd', dynamic, done),
  CopyRevoke: method('CopyRevoke', clientKey, done),
  DynamicReplicaCopyRevoke: method('DynamicReplicaCopyRevoke', dynamic, done),
  MoveStart: method(
    'MoveStart',
    { client: uuid, key: bytes, tenant: text, source: text, target: text },
    expected(move),
  ),
  MoveEnd: method('MoveEnd', clientKey, done),
  MoveRevoke: method('MoveRevoke', clientKey, done),
  EvictDiskReplica: method('EvictDiskReplica', { ...clientKey, replicaType: i32 }, done),
  BatchEvictDiskReplica: method(
    'BatchEvictDiskReplica',
    { client: uuid, keys: packed, tenant: text, replicaType: i32 },
    allDone,
  ),
  PollRemoveAll: method('PollRemoveAll', { client: uuid }, expected(bool)),
  CreateCopyTask: method('CreateCopyTask', { key: bytes, tenant: text, targets: names }, expected(uuid)),
  CreateMoveTask: method('CreateMoveTask', { key: bytes, tenant: text, source: text, target: text }, expected(uuid)),
  QueryTask: method('QueryTask', { task: uuid }, expected(taskState)),
  FetchTasks: method('FetchTasks', { client: uuid, count: u64 }, expected(vector(task))),
  MarkTaskToComplete: method('MarkTaskToComplete', { client: uuid, end: taskEnd }, done),
} as const;

export type MethodName = keyof typeof METHODS;
