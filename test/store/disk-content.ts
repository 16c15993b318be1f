/** What the tests of the disk tier put: objects that no two have a page in common. */
export const PER_BATCH = 8;

/** Bytes of object `n`: some of a few bytes, most of some pages, of lengths that end anywhere. */
export function contentOf(n: number): Uint8Array {
  const size = n % 5 === 0 ? 1 + (n % 300) : 1 + ((n * 7919) % 60_000);
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at++) bytes[at] = (n * 31 + at * 7 + (at >> 12)) & 255;
  return bytes;
}
