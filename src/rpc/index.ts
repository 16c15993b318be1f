/** Mooncake's RPC, both ends: frames of coro_rpc, values of struct_pack, schemas by wheel version. */
export type { Packed } from './batches.js';
export { RpcClient, type RpcClientOptions } from './client.js';
export { RPC_ERROR } from './frames.js';
export { functionId, type Method } from './method.js';
export { CLIENT_METHODS } from './schemas/client_v0_3_13.js';
export { METHODS, type MethodName } from './schemas/v0_3_13.js';
export { type Refusal, type RequestInfo, RpcServer, type RpcServerOptions, type RpcServerStats } from './server.js';
export { pack, typeCode, unpack } from './struct-pack.js';
export { type ExpectedValue, failure, type StructValue, success, type Type, type Value } from './types.js';
