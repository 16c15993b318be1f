/** mooncake-ts: what the package exports in Node, all of `mooncake-ts/edge` and what needs more than the edge has. */
import { readFileSync } from 'node:fs';
import { useSharedCore } from './core/wasm.js';

useSharedCore(() => readFileSync(new URL('../core.shared.wasm', import.meta.url)));

export type * from './connector/api.js';
export type { LoadName } from './connector/decode.js';
export { MooncakeConnector, type MooncakeConnectorOptions } from './connector/mooncake.js';
export { MultiConnector } from './connector/multi.js';
export { MooncakeStoreConnector, type StoreConnectorOptions } from './connector/store.js';
export {
  type Allocation,
  type Allocations,
  type AllocatorFigures,
  AllocatorSet,
  type AllocatorSetOptions,
  OffsetAllocator,
  type SegmentOptions,
} from './core/alloc.js';
export { Crc64, crc64Combine, crc64Into } from './core/checksum.js';
export { type Descriptor, Descriptors } from './core/descriptors.js';
export { type Key, Keys, MAX_KEY_BYTES } from './core/keys.js';
export { KvLayout, type KvLayoutOptions } from './core/layout.js';
export {
  headRange,
  type KvDtype,
  type KvGroupOptions,
  type KvKind,
  type KvPlace,
  type KvRange,
  type KvTensorOptions,
} from './core/layout-group.js';
export type { LayerChoice } from './core/layout-match.js';
export type { BlockIds } from './core/layout-pairs.js';
export { type PlanOptions, planTransfer, type TransferBlocks, TransferPlan } from './core/layout-plan.js';
export { type TransferSource, transferSources } from './core/layout-sources.js';
export { fromTorch, type KvAxis, type TorchGroup, type TorchTensor } from './core/layout-tensor.js';
export {
  type LookupMode,
  OBJECT_EXISTS,
  OBJECT_LISTS,
  OBJECT_TABLE_FULL,
  ObjectTable,
  type ObjectTableOptions,
  type ObjectTableStats,
} from './core/objects.js';
export type { ObjectState } from './core/objects-records.js';
export * from './edge/index.js';
export type * from './master/api.js';
export type { AllocationStrategy, MetadataOptions, TenantPolicy } from './master/options.js';
export { MetadataService } from './master/service.js';
export { STATUS } from './master/status.js';
export { WorkerPool, type WorkerPoolOptions } from './pool/piscina.js';
export type {
  CallOptions,
  HashAndMatchOptions,
  HashedMatch,
  MatchOptions,
  PoolOptions,
  PoolStats,
  TaskPool,
} from './pool/pool.js';
export type { ProxiedEngine, XpydProxyOptions } from './proxy/options.js';
export { XpydProxy } from './proxy/proxy.js';
export { AGENTIC_DEFAULTS, type AgenticOptions, type AgenticResult, agentic } from './replay/agentic.js';
export { type PolicyName, policyNames } from './replay/policies.js';
export { parseTrace, readTrace } from './replay/read.js';
export { type ReplayOptions, type ReplayResult, replay } from './replay/replay.js';
export { replayStore, type StoreReplayOptions, type StoreReplayResult } from './replay/store.js';
export { type Trace, TraceBuilder, type TraceRequest } from './replay/trace.js';
export { generateTrace, type WorkloadOptions } from './replay/workload.js';
export {
  ServiceConnector,
  type ServiceConnectorOptions,
  type ServiceConnectorSpec,
  sharedMemory,
} from './service/client.js';
export type { EngineEvent } from './service/engines.js';
export { NodeService, type NodeServiceOptions } from './service/service.js';
export type { EngineStatus, ServiceStatus } from './service/status.js';
export * from './store/api.js';
export type { AttachOptions } from './store/attached.js';
export type { StoreCounters, StoreFigures, StoreStats } from './store/counters.js';
export { DiskTier, type DiskTierOptions, type DiskTierStats } from './store/disk/tier.js';
export type { HotCacheFigures } from './store/hot-cache.js';
export type { ConnectOptions } from './store/joined/options.js';
export type { PeerFigures } from './store/joined/peers.js';
export type { NodeAttachOptions } from './store/node/attached.js';
export type { DoorOptions } from './store/node/door.js';
export { type NodeStatus, StoreNode, type StoreNodeOptions } from './store/node/node.js';
export type {
  GetValueOptions,
  IntegrityOptions,
  PutValueOptions,
  RemoveOptions,
  StoreOptions,
  TenantOptions,
} from './store/options.js';
export type { SegmentOptions as StoreSegmentOptions } from './store/segments.js';
export { MooncakeStore } from './store/store.js';
export type { SegmentRange } from './store/values.js';
export type { ObjectView } from './store/view.js';
export type { TransferOptions } from './transfer/base.js';
export type {
  AllocateOptions,
  DeviceMemory,
  DmaBuf,
  EnginePeer,
  EngineStatistics,
  FileOptions,
  ForeignMemory,
  LinkStatistics,
  MemorySegment,
  Notification,
  PciDistance,
  PeerSegment,
  RdmaOptions,
  SegmentOptions as EngineSegmentOptions,
  Topology,
  TransferBatch,
  TransferEngineOptions,
} from './transfer/engine/api.js';
export { TransferEngine } from './transfer/engine/engine.js';
export { LocalTransfer, type LocalTransferOptions } from './transfer/local.js';
export { TcpTransfer, type TcpTransferOptions } from './transfer/tcp/transfer.js';
export type {
  CallLimits,
  MoveOptions,
  MoveReport,
  Peer,
  RegisterOptions,
  RemoteSegment,
  RequestContext,
  RequestHandler,
  Transfer,
  Verify,
} from './transfer/transfer.js';
