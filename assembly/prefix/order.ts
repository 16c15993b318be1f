// The order of eviction: the recency list from its oldest end, each node's blocks from its last to its first.
import { block, copyKey, KEY, previous } from './blocks';
import { CURSOR, CURSOR_BLOCK, get, OLDEST, set, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, holdersOf } from './holders';
import { FIRST, LAST, lengthOf, NEWER, node } from './nodes';

/** Starts a listing at the least recently used node. */
export function orderStart(): void {
  set(CURSOR, get(OLDEST));
  set(CURSOR_BLOCK, 0);
}

/**
 * Writes the next keys held by holders whose code under `mask` is `holder`, at most `room` of them. Returns how many:
 * 0 at the end.
 */
export function orderNext(holder: u32, mask: u32, out: usize, room: u32): u32 {
  const width = get(WIDTH);
  let written: u32 = 0;
  let id = get(CURSOR);
  while (id && written < room) {
    const record = node(id);
    let at = get(CURSOR_BLOCK);
    if (!at) {
      at = load<u32>(record, LAST);
      for (let skip = lengthOf(record) - heldBy(record, holder, mask); skip > 0; skip--) at = previous(block(at));
    }
    const above = previous(block(load<u32>(record, FIRST)));
    for (; at != above && written < room; written++) {
      copyKey(out + written * width, block(at) + KEY);
      at = previous(block(at));
    }
    const whole = at == above;
    set(CURSOR_BLOCK, whole ? 0 : at);
    if (whole) id = load<u32>(record, NEWER);
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
