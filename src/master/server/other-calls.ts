/**
 * Calls about what this master does not have: NVMe-oF targets, distributed file systems, copy and move. They are answered as the stock master answers where these are switched off (wheel 0.3.13.post1, observed), so
 * that clients go on without them.
 */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success } from '../../rpc/types.js';
import type { Status } from '../api.js';
import type { MetadataService } from '../service.js';
import { STATUS } from '../status.js';
import { oneKey } from './keys.js';
import type { Lending } from './lending.js';

/** Numbers of Mooncake's ErrorCode. */
const NO_REPLICATION_TASK = -709;
const UNAVAILABLE_IN_MODE = -1011;
const TASK_NOT_FOUND = -1400;

export function serveOthers(server: RpcServer, service: MetadataService, lending: Lending): void {
  const isMounted = (name: string) => lending.segments().some((segment) => segment.name === name);
  const inMode = () => failure(UNAVAILABLE_IN_MODE);
  server.handle(METHODS.MountNoFSegment, inMode);
  server.handle(METHODS.ReMountNoFSegment, inMode);
  server.handle(METHODS.UnmountNoFSegment, inMode);
  server.handle(METHODS.GetAllNoFSegments, () => success([]));
  server.handle(METHODS.GetNoFSegmentsByName, () => failure(STATUS.segmentNotFound));

  // Copies and moves: what is wrong with a request is said as stock says it, and what is right with "not now".
  type OfKey = { key: Uint8Array; tenant: string };
  const refuse =
    (status: Status) =>
    ({ key, tenant }: OfKey) =>
      failure(isKnown(service, key, tenant) ? status : STATUS.notFound);
  const noTask = refuse(NO_REPLICATION_TASK);
  const notNow = refuse(STATUS.unavailable);
  const begin = (call: OfKey & { source: string }) =>
    isMounted(call.source) ? notNow(call) : failure(STATUS.segmentNotFound);
  const create = (call: OfKey, segments: readonly string[]) =>
    segments.every(isMounted) ? notNow(call) : refuse(STATUS.invalidParams)(call);
  server.handle(METHODS.CopyStart, begin);
  server.handle(METHODS.MoveStart, begin);
  server.handle(METHODS.DynamicReplicaCopyStart, notNow);
  const ends = ['CopyEnd', 'CopyRevoke', 'MoveEnd', 'MoveRevoke'] as const;
  for (const name of ends) server.handle(METHODS[name], noTask);
  server.handle(METHODS.DynamicReplicaCopyEnd, noTask);
  server.handle(METHODS.DynamicReplicaCopyRevoke, noTask);
  server.handle(METHODS.CreateCopyTask, (call) =>
    call.targets.length === 0 ? failure(STATUS.invalidParams) : create(call, call.targets),
  );
  server.handle(METHODS.CreateMoveTask, (call) => create(call, [call.source, call.target]));
  server.handle(METHODS.QueryTask, () => failure(TASK_NOT_FOUND));
  server.handle(METHODS.FetchTasks, () => success([]));
  server.handle(METHODS.MarkTaskToComplete, () => failure(TASK_NOT_FOUND));
}

function isKnown(service: MetadataService, key: Uint8Array, tenant: string): boolean {
  const { keys } = oneKey(key);
  if (keys.length === 0) return false;
  const [found] = service.peek(keys, tenant);
  return found.ok || found.status === STATUS.notReady;
}
