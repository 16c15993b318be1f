/**
 * Which blocks a batch moves. Blocks of a batch are not adjacent to each other in its order, so that nothing can be merged;
 * successive batches lie in successive parts of the memory, so that small ones are not found in a cache that the one before
 * has filled. The same places on both sides. The drivers of other systems (bench/peers/driver.py) use the same.
 */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';

const MAX_PARTS = 8;

/** Offsets of the blocks of each batch, within `total` bytes. */
export function parts(total: number, block: number, count: number): number[][] {
  const stride = count % 7 === 0 ? 11 : 7;
  const number = Math.max(1, Math.min(MAX_PARTS, Math.floor(total / (block * count))));
  return Array.from({ length: number }, (_, part) =>
    Array.from({ length: count }, (_, i) => (part * count + ((i * stride) % count)) * block),
  );
}

/** The batch from `source` to `destination`, which are segment numbers. */
export function batch(source: number, destination: number, places: readonly number[], block: number): Descriptors {
  const bytes = allocateDescriptors(places.length);
  const view = new DataView(bytes.buffer);
  places.forEach((place, index) => {
    const at = DESCRIPTOR_BYTES * (index + 1);
    view.setUint32(at, source, true);
    view.setUint32(at + 4, destination, true);
    view.setBigUint64(at + 8, BigInt(place), true);
    view.setBigUint64(at + 16, BigInt(place), true);
    view.setBigUint64(at + 24, BigInt(block), true);
  });
  return new Descriptors(bytes);
}
