/**
 * Calls about what this master does not have: NVMe-oF targets, distributed file systems, disks of clients, promotion, copy and
 * move. They are answered as the stock master answers where these are switched off (wheel 0.3.13.post1, observed), so
 * that clients go on without them.
 */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';
import { STATUS } from '../status.js';
import type { Lending } from './lending.js';

/** Numbers of Mooncake's ErrorCode. */
const NO_REPLICATION_TASK = -709;
const UNAVAILABLE_IN_MODE = -1011;
const OFFLOAD_DISABLED = -1300;
const TASK_NOT_FOUND = -1400;

export function serveOthers(server: RpcServer, lending: Lending): void {
  const isMounted = (name: string) => lending.segments().some((segment) => segment.name === name);
  const inMode = () => failure(UNAVAILABLE_IN_MODE);
  server.handle(METHODS.MountNoFSegment, inMode);
  server.handle(METHODS.ReMountNoFSegment, inMode);
  server.handle(METHODS.UnmountNoFSegment, inMode);
  server.handle(METHODS.GetAllNoFSegments, () => success([]));
  server.handle(METHODS.GetNoFSegmentsByName, () => failure(STATUS.segmentNotFound));

  server.handle(METHODS.MountLocalDiskSegment, () => failure(OFFLOAD_DISABLED));
  server.handle(METHODS.UnmountLocalDiskSegment, () => failure(OFFLOAD_DISABLED));
  server.handle(METHODS.OffloadObjectHeartbeat, () => failure(STATUS.segmentNotFound));
  server.handle(METHODS.ReportSsdCapacity, () => failure(STATUS.segmentNotFound));
  server.handle(METHODS.NotifyOffloadSuccess, () => verdict(0));
  server.handle(METHODS.PromotionObjectHeartbeat, () => failure(STATUS.segmentNotFound));
  server.handle(METHODS.PollRemoveAll, () => failure(STATUS.segmentNotFound));

  const none = () => failure(NO_REPLICATION_TASK);
  const notNow = () => failure(STATUS.unavailable);
  const from = ({ source }: { source: string }) => (isMounted(source) ? notNow() : failure(STATUS.segmentNotFound));
  server.handle(METHODS.CopyStart, from);
  server.handle(METHODS.CopyEnd, none);
  server.handle(METHODS.CopyRevoke, none);
  server.handle(METHODS.DynamicReplicaCopyStart, notNow);
  server.handle(METHODS.DynamicReplicaCopyEnd, none);
  server.handle(METHODS.DynamicReplicaCopyRevoke, none);
  server.handle(METHODS.MoveStart, from);
  server.handle(METHODS.MoveEnd, none);
  server.handle(METHODS.MoveRevoke, none);
  server.handle(METHODS.CreateCopyTask, ({ targets }) =>
    targets.length > 0 && targets.every(isMounted) ? notNow() : failure(STATUS.invalidParams),
  );
  server.handle(METHODS.CreateMoveTask, ({ source, target }) =>
    isMounted(source) && isMounted(target) ? notNow() : failure(STATUS.invalidParams),
  );
  server.handle(METHODS.QueryTask, () => failure(TASK_NOT_FOUND));
  server.handle(METHODS.FetchTasks, () => success([]));
  server.handle(METHODS.MarkTaskToComplete, () => failure(TASK_NOT_FOUND));
}
