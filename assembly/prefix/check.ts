// Checks every invariant of an index: what tests run after each step.
import { HEADER } from '../memory';
import { block, entered, KEY, nodeOf, previous } from './blocks';
import { BLOCKS, get, HELD, NEWEST, NODE_NEXT, NODES, OLDEST, PENDING, TWINS } from './header';
import { entriesOf, entryHolder, entryLength, heldLength, holdersOf } from './holders';
import { CHILDREN, FIRST, isDense, LAST, lengthOf, NEWER, node, OLDER, parentOf, START } from './nodes';
import { isNoted } from './pending';
import { find, hasBlock } from './table';

/**
 * 0 when all hold, else which does not: 1 a broken recency list, 2 an empty run, 3 a run whose blocks are not its own,
 * 4 a block that the table has and should not, or should have and has not, 5 a wrong start, 6 a node older than its
 * descendant, 7 a bad or repeated entry, 8 an unheld end of a leaf, 9 wrong child counts, 10 wrong totals. `marks`: 4
 * zero bytes for each node id.
 */
export function check(marks: usize): i32 {
  let nodes: u32 = 0;
  let blocks: u32 = 0;
  let pending: u32 = 0;
  let children: u32 = 0;
  let roots: u32 = 0;
  let held: u64 = 0;
  let older: u32 = 0;
  for (let id = get(OLDEST); id; ) {
    const record = node(id);
    if (load<u32>(record, OLDER) != older || ++nodes > get(NODES)) return 1;
    const length = lengthOf(record);
    if (!length) return 2;
    let at = load<u32>(record, LAST);
    const dense = isDense(record);
    for (let k = length; k > 0; k--) {
      const first = at == load<u32>(record, FIRST);
      if (nodeOf(block(at)) != id || (k == 1) != first) return 3;
      if (dense && at != load<u32>(record, FIRST) + k - 1) return 3;
      const waits = !entered(block(at));
      if (waits && (!dense || first || !isNoted(at))) return 4;
      if (hasBlock(at) == waits) return 4;
      if (!waits && find(block(at) + KEY) != at && !get(TWINS)) return 4;
      if (waits) pending++;
      at = previous(block(at));
    }
    blocks += length;
    const above = parentOf(record);
    if (load<u32>(record, START) != (above ? load<u32>(node(above), START) + lengthOf(node(above)) : 0)) return 5;
    // A run continues only where another ends.
    if (above && load<u32>(node(above), LAST) != previous(block(load<u32>(record, FIRST)))) return 5;
    if (above && load<u32>(marks + (above << 2)) == 0xffff_ffff) return 6;
    if (load<u32>(marks + (id << 2)) != load<u32>(record, CHILDREN)) return 9;
    store<u32>(marks + (id << 2), 0xffff_ffff);
    if (above) store<u32>(marks + (above << 2), load<u32>(marks + (above << 2)) + 1);
    else roots++;
    const count = holdersOf(record);
    for (let k: u32 = 0; k < count; k++) {
      const entry = entriesOf(record, count) + (k << 2);
      if (entryLength(entry) == 0 || entryLength(entry) > length) return 7;
      for (let j: u32 = 0; j < k; j++) {
        if (entryHolder(entriesOf(record, count) + (j << 2)) == entryHolder(entry)) return 7;
      }
      held += entryLength(entry);
    }
    if (!load<u32>(record, CHILDREN) && heldLength(record) != length) return 8;
    children += load<u32>(record, CHILDREN);
    older = id;
    id = load<u32>(record, NEWER);
  }
  if (get(NEWEST) != older) return 1;
  if (children + roots != nodes) return 9;
  if (nodes != get(NODES) || blocks != get(BLOCKS) || held != load<u64>(HEADER + HELD)) return 10;
  if (pending != get(PENDING)) return 10;
  return get(NODE_NEXT) > nodes ? 0 : 10;
}
