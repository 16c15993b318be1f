/** mooncake-ts: what the package exports in Node. The portable part is `mooncake-ts/edge`. */
import { readFileSync } from 'node:fs';
import { useSharedCore } from './core/wasm.js';

useSharedCore(() => readFileSync(new URL('../core.shared.wasm', import.meta.url)));

export {
  type Allocation,
  type Allocations,
  type AllocatorFigures,
  AllocatorSet,
  type AllocatorSetOptions,
  OffsetAllocator,
  type SegmentOptions,
} from './core/alloc.js';
export { Crc64, crc64, crc64Combine, crc64Into } from './core/checksum.js';
export { type ErrorCode, MooncakeError } from './core/errors.js';
export {
  MooncakeConnector,
  MooncakeStore,
  MooncakeStoreConnector,
  MultiConnector,
  TransferEngine,
} from './planned.js';
