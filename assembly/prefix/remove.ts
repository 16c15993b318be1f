// Removal. Blocks are removed from the end of a list to its start, so that a chain that goes whole is trimmed from its
// leaf and never cut. Each block (each node, for `clear`) is a change of its own: readers get their turn in between.
import { block, nodeOf, previous } from './blocks';
import { addHeld, change, get, NO_MEMORY, OLDEST, publish, WIDTH } from './header';
import { entriesOf, entryHolder, entryLength, findEntry, holdersOf, removeEntry, setEntryLength } from './holders';
import { NEWER, node, offsetOf, parentOf, START } from './nodes';
import { firstPlace, nextPlace } from './pending';
import { cut, join, trim } from './shape';

/** Takes blocks, wherever they stand, from a holder. Returns how many it had, or NO_MEMORY with some of them taken. */
export function remove(holder: u32, hashes: usize, count: u32): i32 {
  const width = get(WIDTH);
  let removed = 0;
  let above: u32 = 0; // the block above the last one looked at,
  let depth: u32 = 0; // and how deep that one was
  for (let k = count; k > 0; k--) {
    const key = hashes + (k - 1) * width;
    for (let id = firstPlace(key); id; ) {
      const owner = nodeOf(block(id));
      const start = load<u32>(node(owner), START);
      const offset = id == above ? depth - 1 - start : offsetOf(id);
      above = previous(block(id));
      depth = start + offset;
      const entry = findEntry(node(owner), holder);
      const next = nextPlace(key, id);
      if (entry && offset < entryLength(entry)) {
        change();
        const taken = take(owner, entry, offset, id);
        publish();
        if (!taken) return NO_MEMORY;
        addHeld(-1);
        removed++;
        // Taking frees blocks, and with them may go the next place.
        id = next ? firstPlace(key) : 0;
      } else {
        id = next;
      }
    }
  }
  return removed;
}

// Takes the block at an offset from the holder that an entry names.
function take(owner: u32, entry: usize, offset: u32, id: u32): bool {
  const hole = offset + 1 < entryLength(entry);
  if (hole) {
    // The blocks behind it stay held: they become a node of their own.
    const holder = entryHolder(entry);
    owner = cut(owner, offset + 1, id);
    if (!owner) return false;
    entry = findEntry(node(owner), holder);
  }
  if (offset) setEntryLength(entry, offset);
  else removeEntry(node(owner), entry);
  if (!hole) trim(owner, true);
  else if (parentOf(node(owner))) join(parentOf(node(owner)), owner);
  return true;
}

/**
 * Takes everything from the holders whose code, less the bits outside `mask`, is `holder`. Returns the number of pairs
 * of a block and a holder that went.
 */
export function clear(holder: u32, mask: u32): f64 {
  let removed: u64 = 0;
  // From the oldest node on: descendants first, and a parent that this leaves bare is still to come.
  for (let id = get(OLDEST); id; ) {
    const record = node(id);
    const newer = load<u32>(record, NEWER);
    let gone: u32 = 0;
    change();
    for (let k = holdersOf(record); k > 0; k--) {
      const entry = entriesOf(record, holdersOf(record)) + ((k - 1) << 2);
      if ((entryHolder(entry) & mask) != holder) continue;
      gone += entryLength(entry);
      removeEntry(record, entry);
    }
    trim(id, false);
    publish();
    addHeld(-(<i64>gone));
    removed += gone;
    id = newer;
  }
  return <f64>removed;
}
