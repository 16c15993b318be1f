// Insertion and use. What readers must not see halfway, cutting, linking and holding, is one short change; new blocks are
// written before it.
import { append, discard } from './append';
import { block, nodeOf } from './blocks';
import {
  addHeld,
  change,
  GROWN_BY,
  GROWN_TO,
  get,
  NO_MEMORY,
  ORPHAN,
  publish,
  set,
  WALK_NODE,
  WALK_OFFSET,
  WALK_TAIL,
  WIDTH,
} from './header';
import { addEntry, entryLength, findEntry, setEntryLength } from './holders';
import { blockAt, CHILDREN, LAST, lengthOf, node, offsetOf, parentOf, START, setLength } from './nodes';
import { firstPlace, nextPlace } from './pending';
import { refresh } from './recency';
import { cut, join, trim } from './shape';
import { startAt, walk } from './walk';

/**
 * Records that a holder has `count` blocks that follow the block with key `parent` (0: from the start), and that the
 * whole path to them was used. Returns how many it did not have before, or NO_MEMORY, ORPHAN; after the last nothing has
 * changed.
 */
export function insert(holder: u32, hashes: usize, count: u32, parent: usize): i32 {
  const above = parent ? parentOfHolder(parent, holder) : 0;
  if (parent && !above) return ORPHAN;
  if (count == 0) return 0;
  startAt(above);
  const depth = load<u32>(node(get(WALK_NODE)), START) + get(WALK_OFFSET);
  const known = walk(hashes, count);
  let last = get(WALK_TAIL);
  if (known < count) {
    const status = append(hashes + known * get(WIDTH), count - known, depth + known);
    if (status < 0) return status;
    last = status;
  }
  change();
  let added = NO_MEMORY;
  if (attach(last)) {
    use(last);
    added = hold(holder, last, depth);
    if (added < 0) trim(nodeOf(block(last)), true);
  }
  publish();
  return added;
}

// The block that a holder means by a key: where it stands at several places the one it holds, or 0 in doubt.
function parentOfHolder(key: usize, holder: u32): u32 {
  let id = firstPlace(key);
  if (!id || !nextPlace(key, id)) return id;
  let held: u32 = 0;
  for (; id; id = nextPlace(key, id)) {
    const entry = findEntry(node(nodeOf(block(id))), holder);
    if (!entry || offsetOf(id) >= entryLength(entry)) continue;
    if (held) return 0;
    held = id;
  }
  return held;
}

/** Records a use of the leading blocks that the index has. Returns how many, or NO_MEMORY. */
export function touch(hashes: usize, count: u32): i32 {
  startAt(0);
  const known = walk(hashes, count);
  if (!known) return 0;
  change();
  set(GROWN_BY, 0);
  const attached = attach(get(WALK_TAIL));
  if (attached) {
    use(get(WALK_TAIL));
    tidy(get(WALK_TAIL));
  }
  publish();
  return attached ? known : NO_MEMORY;
}

// Links what was appended after the walk's end, cutting the node in which the walk ended, so that a node ends at `last`.
function attach(last: u32): bool {
  const tail = get(WALK_TAIL);
  const under = get(WALK_NODE);
  const offset = get(WALK_OFFSET);
  if (offset < lengthOf(node(under)) && !cut(under, offset, tail)) {
    discard(last, tail);
    return false;
  }
  if (last == tail) return true;
  const grown = get(GROWN_BY);
  const joint = grown ? get(GROWN_TO) : tail;
  if (grown) {
    store<u32>(node(under), joint, LAST);
    setLength(node(under), offset + grown);
  }
  if (joint != last && joint) {
    const parent = node(nodeOf(block(joint)));
    store<u32>(parent, load<u32>(parent, CHILDREN) + 1, CHILDREN);
  }
  return true;
}

// Moves the path that ends at `last` to the newest end of the recency list.
function use(last: u32): void {
  for (let id = nodeOf(block(last)); id; id = parentOf(node(id))) refresh(id);
}

// Joins what can be joined along the path that ends at `last`.
function tidy(last: u32): void {
  let id = nodeOf(block(last));
  for (let above = parentOf(node(id)); above; above = parentOf(node(id))) {
    const joined = join(above, id);
    id = joined;
  }
}

// Gives the holder every block from `depth` to `last`, where a node ends. Returns how many it did not have.
function hold(holder: u32, last: u32, depth: u32): i32 {
  let added: u32 = 0;
  let id = nodeOf(block(last));
  while (id) {
    const record = node(id);
    const start = load<u32>(record, START);
    const length = lengthOf(record);
    if (start + length <= depth) break;
    const from = start < depth ? depth - start : 0;
    const entry = findEntry(record, holder);
    const held = entry ? entryLength(entry) : 0;
    if (held >= from) {
      if (entry) setEntryLength(entry, length);
      else if (!addEntry(record, holder, length)) return NO_MEMORY;
      added += length - held;
      addHeld(length - held);
    } else {
      // A hole above: only a node of its own can say what lies below.
      const end = load<u32>(record, LAST);
      if (!cut(id, from, blockAt(record, from - 1))) return NO_MEMORY;
      if (!addEntry(node(nodeOf(block(end))), holder, length - from)) return NO_MEMORY;
      added += length - from;
      addHeld(length - from);
    }
    if (start <= depth) break;
    id = parentOf(node(id));
  }
  tidy(last);
  return added;
}
