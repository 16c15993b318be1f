/** Descriptors from objects, by the documented layout and not by the package's own writer. */
import { type Descriptor, Descriptors } from 'mooncake-ts';

export function descriptorsOf(list: readonly Descriptor[]): Descriptors {
  const bytes = new Uint8Array(32 * (list.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(list.length), true);
  list.forEach((record, index) => {
    const at = 32 * (index + 1);
    view.setUint32(at, record.sourceSegment, true);
    view.setUint32(at + 4, record.destinationSegment, true);
    view.setBigUint64(at + 8, BigInt(record.sourceOffset), true);
    view.setBigUint64(at + 16, BigInt(record.destinationOffset), true);
    view.setBigUint64(at + 24, BigInt(record.length), true);
  });
  return new Descriptors(bytes);
}

/** One contiguous copy. */
export function one(
  sourceSegment: number,
  sourceOffset: number,
  destinationSegment: number,
  destinationOffset: number,
  length: number,
): Descriptors {
  return descriptorsOf([{ sourceSegment, destinationSegment, sourceOffset, destinationOffset, length }]);
}

/** Bytes that differ from place to place and from seed to seed. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, state = seed; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}
