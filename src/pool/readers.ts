/**
 * Readers of shared indexes, one for each lane of a pool: a batch reads with its lane's, so no two threads ever share one.
 * An index keeps a reader's place for as long as it lives, so a pool that closes leaves its readers to the next one.
 */
import type { PrefixIndex } from '../core/prefix.js';
import type { PrefixReaderHandle } from '../core/prefix-reader.js';

const spare = new WeakMap<PrefixIndex, PrefixReaderHandle[]>();

/** A reader that no worker uses. It knows no names: answers are named on the index's own thread. */
export function takeReader(index: PrefixIndex): PrefixReaderHandle {
  return spare.get(index)?.pop() ?? { ...index.reader(), names: [] };
}

/** Takes back readers whose lanes were idle when the pool closed; a worker that was cut off may still be reading. */
export function giveReaders(index: PrefixIndex, readers: readonly PrefixReaderHandle[]): void {
  const known = spare.get(index);
  if (known) known.push(...readers);
  else spare.set(index, [...readers]);
}
