/** What is in the memory of the processes under test. */

/** Bytes that depend on their place, so that none can be taken for another's. */
export function placed(length: number, seed: number): Uint8Array {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((Math.imul(at + seed, 2654435761) ^ seed) >>> 0, at);
  return bytes;
}

export function isFilled(bytes: Uint8Array, value: number): boolean {
  return bytes[0] === value && Buffer.compare(bytes.subarray(1), bytes.subarray(0, bytes.length - 1)) === 0;
}
