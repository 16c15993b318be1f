/**
 * Calls about what this master does not have: NVMe-oF targets. They are answered as the stock master answers where these are
 * switched off (wheel 0.3.13.post1, observed), so that clients go on without them.
 */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success } from '../../rpc/types.js';
import { STATUS } from '../status.js';

/** Numbers of Mooncake's ErrorCode. */
const UNAVAILABLE_IN_MODE = -1011;

export function serveOthers(server: RpcServer): void {
  const inMode = () => failure(UNAVAILABLE_IN_MODE);
  server.handle(METHODS.MountNoFSegment, inMode);
  server.handle(METHODS.ReMountNoFSegment, inMode);
  server.handle(METHODS.UnmountNoFSegment, inMode);
  server.handle(METHODS.GetAllNoFSegments, () => success([]));
  server.handle(METHODS.GetNoFSegmentsByName, () => failure(STATUS.segmentNotFound));
}
