// Checks every invariant of an index: what tests run after each step.
import { HEADER } from '../memory';
import { block, KEY, nodeOf, previous } from './blocks';
import { BLOCKS, get, HELD, NEWEST, NODE_NEXT, NODES, OLDEST } from './header';
import { entriesOf, entryHolder, entryLength, heldLength, holdersOf } from './holders';
import { CHILDREN, FIRST, LAST, lengthOf, NEWER, node, OLDER, parentOf, START } from './nodes';
import { find } from './table';

/**
 * 0 when all hold, else which does not: 1 a broken recency list, 2 an empty run, 3 a run whose blocks are not its own,
 * 4 a block the table does not find, 5 a wrong start, 6 a node older than its descendant, 7 a bad or repeated entry,
 * 8 an unheld end of a leaf, 9 wrong child counts, 10 wrong totals. `marks`: 4 zero bytes for each node id.
 */
export function check(marks: usize): i32 {
  let nodes: u32 = 0;
  let blocks: u32 = 0;
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
    for (let k = length; k > 0; k--) {
      if (nodeOf(block(at)) != id || (k == 1) != (at == load<u32>(record, FIRST))) return 3;
      if (find(block(at) + KEY) != at) return 4;
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
  return get(NODE_NEXT) > nodes ? 0 : 10;
}
