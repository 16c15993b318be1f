/**
 * Replays a trace through the store's metadata service itself: an object a block, read where it is there and put where it
 * is not. `replay` with the policy `store` must give the same hits and evictions; this is how that is checked.
 */
import { Keys } from '../core/keys.js';
import { MetadataService } from '../master/service.js';
import { STATUS } from '../master/status.js';
import type { Trace } from './trace.js';

export interface StoreReplayOptions {
  /** Objects that the store has room for. */
  blocks: number;
  /** Bytes of an object, a multiple of 64. Default 4096. */
  blockBytes?: number;
  evictionHighWatermark?: number;
  evictionRatio?: number;
}

export interface StoreReplayResult {
  hitBlocks: number;
  /** The service's own counter. */
  evictions: number;
  seconds: number;
}

const CLIENT = '0'.repeat(31).concat('1');
const SEGMENT = '0'.repeat(31).concat('2');

export function replayStore(trace: Trace, options: StoreReplayOptions): StoreReplayResult {
  const { blocks, blockBytes = 4096, evictionHighWatermark, evictionRatio } = options;
  // The clock stands still and a lease ends as it begins: nothing is protected.
  const service = new MetadataService({ leaseTtlMs: 0, now: () => 0, evictionHighWatermark, evictionRatio });
  const length = blocks * blockBytes;
  const place = { endpoint: 'local:replay', protocol: 'local', hostId: '' };
  service.mountSegment({ id: SEGMENT, name: 'replay', base: 0, length, ...place }, CLIENT);
  const started = performance.now();
  const size = Float64Array.of(blockBytes);
  const bytes = new Uint8Array(trace.hashes.buffer, trace.hashes.byteOffset, trace.hashes.byteLength);
  const offsets = Uint32Array.of(0, 8);
  const keyOf = (block: number) => new Keys(bytes.subarray(8 * block, 8 * block + 8), offsets);
  let hitBlocks = 0;
  for (let request = 0; request < trace.requests; request++) {
    const keys = Array.from(trace.blocks.subarray(trace.offsets[request], trace.offsets[request + 1]), keyOf);
    for (const key of keys) {
      if (!service.peek(key)[0].ok) break;
      hitBlocks++;
    }
    for (const key of keys) {
      if (service.getReplicas(key)[0].ok) continue;
      const [outcome] = service.putStart(CLIENT, key, size, {});
      if (outcome.ok) service.putEnd(CLIENT, key, [undefined]);
      else if (outcome.status !== STATUS.noSpace) throw new Error(outcome.why);
    }
  }
  const { evictedObjects } = service.stats();
  return { hitBlocks, evictions: evictedObjects, seconds: (performance.now() - started) / 1000 };
}
