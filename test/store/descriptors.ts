/** Descriptors from a list of copies, as a test writes them. */
import { Descriptors } from 'mooncake-ts';

export interface Copy {
  source: [segment: number, offset: number];
  destination: [segment: number, offset: number];
  length: number;
}

export function descriptors(copies: readonly Copy[]): Descriptors {
  const bytes = new Uint8Array(32 * (copies.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set([0x4b, 0x56, 0x54, 0x44, 1, 0, 32, 0]);
  view.setBigUint64(8, BigInt(copies.length), true);
  for (const [i, { source, destination, length }] of copies.entries()) {
    const at = 32 * (i + 1);
    view.setUint32(at, source[0], true);
    view.setUint32(at + 4, destination[0], true);
    view.setBigUint64(at + 8, BigInt(source[1]), true);
    view.setBigUint64(at + 16, BigInt(destination[1]), true);
    view.setBigUint64(at + 24, BigInt(length), true);
  }
  return new Descriptors(bytes);
}
