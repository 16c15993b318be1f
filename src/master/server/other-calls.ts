/**
 * Calls about what this master does not have: NVMe-oF targets, distributed file systems, disks of clients, promotion, copy and
 * move. They are answered as the stock master answers where these are switched off (wheel 0.3.13.post1, observed), so
 * that clients go on without them.
 */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';

/** Numbers of Mooncake's ErrorCode. */
const SEGMENT_NOT_FOUND = -101;
const NOT_READY = -703;
const NO_REPLICATION_TASK = -709;
const UNAVAILABLE_NOW = -1010;
const UNAVAILABLE_IN_MODE = -1011;
const OFFLOAD_DISABLED = -1300;
const TASK_NOT_FOUND = -1400;

export function serveOthers(server: RpcServer): void {
  const inMode = () => failure(UNAVAILABLE_IN_MODE);
  server.handle(METHODS.MountNoFSegment, inMode);
  server.handle(METHODS.ReMountNoFSegment, inMode);
  server.handle(METHODS.UnmountNoFSegment, inMode);
  server.handle(METHODS.GetAllNoFSegments, () => success([]));
  server.handle(METHODS.GetNoFSegmentsByName, () => failure(SEGMENT_NOT_FOUND));

  server.handle(METHODS.MountLocalDiskSegment, () => failure(OFFLOAD_DISABLED));
  server.handle(METHODS.UnmountLocalDiskSegment, () => failure(OFFLOAD_DISABLED));
  server.handle(METHODS.OffloadObjectHeartbeat, () => failure(SEGMENT_NOT_FOUND));
  server.handle(METHODS.ReportSsdCapacity, () => failure(SEGMENT_NOT_FOUND));
  server.handle(METHODS.NotifyOffloadSuccess, ({ objects }) =>
    objects.length > 0 ? failure(OFFLOAD_DISABLED) : verdict(0),
  );
  server.handle(METHODS.PromotionObjectHeartbeat, () => failure(SEGMENT_NOT_FOUND));
  server.handle(METHODS.PromotionAllocStart, () => failure(NOT_READY));
  server.handle(METHODS.NotifyPromotionSuccess, () => failure(NOT_READY));
  server.handle(METHODS.NotifyPromotionFailure, () => verdict(0));
  server.handle(METHODS.EvictDiskReplica, () => verdict(0));
  server.handle(METHODS.BatchEvictDiskReplica, ({ keys }) => new Int32Array(keys.offsets.length - 1));
  server.handle(METHODS.PollRemoveAll, () => failure(SEGMENT_NOT_FOUND));

  const none = () => failure(NO_REPLICATION_TASK);
  const notNow = () => failure(UNAVAILABLE_NOW);
  server.handle(METHODS.CopyStart, notNow);
  server.handle(METHODS.CopyEnd, none);
  server.handle(METHODS.CopyRevoke, none);
  server.handle(METHODS.DynamicReplicaCopyStart, notNow);
  server.handle(METHODS.DynamicReplicaCopyEnd, none);
  server.handle(METHODS.DynamicReplicaCopyRevoke, none);
  server.handle(METHODS.MoveStart, notNow);
  server.handle(METHODS.MoveEnd, none);
  server.handle(METHODS.MoveRevoke, none);
  server.handle(METHODS.CreateCopyTask, notNow);
  server.handle(METHODS.CreateMoveTask, notNow);
  server.handle(METHODS.QueryTask, () => failure(TASK_NOT_FOUND));
  server.handle(METHODS.FetchTasks, () => success([]));
  server.handle(METHODS.MarkTaskToComplete, () => failure(TASK_NOT_FOUND));
  // Objects here do not remember who put which copy: nothing is cleared, as where another client owns them.
  server.handle(METHODS.BatchReplicaClear, () => success({ bytes: new Uint8Array(0), offsets: Uint32Array.of(0) }));
}
