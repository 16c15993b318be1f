// The order of eviction: the recency list from its oldest end, each node's blocks from its last to its first.
import { block, copyKey, KEY, previous } from './blocks';
import { CURSOR, get, OLDEST, set, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, holdersOf } from './holders';
import { LAST, lengthOf, NEWER, node } from './nodes';

/** Starts a listing at the least recently used node. */
export function orderStart(): void {
  set(CURSOR, get(OLDEST));
}

/**
 * Writes the next keys held by holders whose code under `mask` is `holder`, at most `room` of them. Returns how many:
 * 0 at the end. A node that does not fit goes to the next call, unless it is the first.
 */
export function orderNext(holder: u32, mask: u32, out: usize, room: u32): u32 {
  const width = get(WIDTH);
  let written: u32 = 0;
  let id = get(CURSOR);
  while (id && written < room) {
    const record = node(id);
    const held = heldBy(record, holder, mask);
    if (held > room - written && written) break;
    let at = load<u32>(record, LAST);
    for (let skip = lengthOf(record) - held; skip > 0; skip--) at = previous(block(at));
    for (let left = min(held, room - written); left > 0; left--) {
      copyKey(out + written * width, block(at) + KEY);
      at = previous(block(at));
      written++;
    }
    id = load<u32>(record, NEWER);
  }
  set(CURSOR, id);
  return written;
}

function heldBy(record: usize, holder: u32, mask: u32): u32 {
  const count = holdersOf(record);
  let entry = entriesOf(record, count);
  let longest: u32 = 0;
  for (const end = entry + (count << 2); entry < end; entry += 4) {
    if ((entryHolder(entry) & mask) == holder) longest = max(longest, entryLength(entry));
  }
  return longest;
}
