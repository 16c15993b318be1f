/** mooncake-ts/master: the store's metadata service. */
export { type ErrorCode, MooncakeError } from '../core/errors.js';
export { type Key, Keys } from '../core/keys.js';

export { MetadataServer, type MetadataServerOptions, MetadataTable } from '../transfer/metadata/server.js';
export type * from './api.js';
export type { CopyEnd, CopyPlan, CopyRequest } from './copies.js';
export type { DiskReplicas, DiskTask, Offloaded } from './disk-replicas.js';
export { type DrainJob, type DrainRequest, Drains, JOB_STATE } from './drain.js';
export type { AllocationStrategy, MetadataOptions, TenantPolicy } from './options.js';
export { type MasterEvent, MooncakeMaster, type MooncakeMasterOptions } from './server/master.js';
export { MetadataService } from './service.js';
export { STATUS } from './status.js';
export { TaskRequests } from './task-requests.js';
export { TASK_STATE, TASK_TYPE, type Task, type TaskOptions, TaskQueue } from './tasks.js';
