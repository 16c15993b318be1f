// Insertion and use. New blocks are written and entered in the table first, where no reader can reach them yet: their
// node has no holder, or ends before them. The change that readers must not see halfway, cutting, linking and holding,
// is short.
import { HEADER } from '../memory';
import { block, copyKey, freeBlock, KEY, nodeOf, previous, reserveBlocks } from './blocks';
import {
  add,
  addHeld,
  BLOCK_FREE,
  BLOCK_NEXT,
  BLOCKS,
  barrier,
  CONFLICT,
  change,
  FENCE,
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
  WARMED,
  WIDTH,
} from './header';
import { addEntry, entryLength, findEntry, setEntryLength } from './holders';
import {
  blockAt,
  CHILDREN,
  FIRST,
  freeNode,
  LAST,
  lengthOf,
  MAX_RUN,
  newNode,
  node,
  parentOf,
  reserveNodes,
  START,
  setLength,
} from './nodes';
import { refresh } from './recency';
import { cut, join, trim } from './shape';
import { erase, find, put, warm } from './table';
import { startAt, walk } from './walk';

// New keys whose table slots are brought into the cache together.
const BATCH: u32 = 32;

/**
 * Records that a holder has `count` blocks that follow the block with key `parent` (0: from the start), and that the
 * whole path to them was used. Returns how many it did not have before, or NO_MEMORY, CONFLICT, ORPHAN; after the last
 * two nothing has changed.
 */
export function insert(holder: u32, hashes: usize, count: u32, parent: usize): i32 {
  const above = parent ? find(parent) : 0;
  if (parent && !above) return ORPHAN;
  if (count == 0) return 0;
  startAt(above);
  const depth = load<u32>(node(get(WALK_NODE)), START) + get(WALK_OFFSET);
  const known = walk(hashes, count);
  if (known < 0) return known;
  let last = get(WALK_TAIL);
  if (<u32>known < count) {
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

/** Records a use of the leading blocks that the index has. Returns how many, or NO_MEMORY, CONFLICT. */
export function touch(hashes: usize, count: u32): i32 {
  startAt(0);
  const known = walk(hashes, count);
  if (known <= 0) return known;
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

// Writes new blocks behind the walk's end: into its node when that is a leaf that ends there, else into new nodes.
// Returns the last block's id.
function append(hashes: usize, count: u32, depth: u32): i32 {
  const width = get(WIDTH);
  const tail = get(WALK_TAIL);
  let owner = get(WALK_NODE);
  const grows = owner != 0 && get(WALK_OFFSET) == lengthOf(node(owner)) && load<u32>(node(owner), CHILDREN) == 0;
  let room = grows ? MAX_RUN - lengthOf(node(owner)) : 0;
  const grown = min(room, count);
  if (!reserveBlocks(count) || !reserveNodes(count / MAX_RUN + 1)) return NO_MEMORY;
  set(GROWN_BY, grown);
  let above = tail;
  let record: usize = node(owner);
  let free = get(BLOCK_FREE);
  let fresh = get(BLOCK_NEXT);
  for (let k: u32 = 0; k < count; k++) {
    const reused = free != 0;
    const id = reused ? free : fresh++;
    if (reused) free = previous(block(id));
    if (room == 0) {
      if (k > grown) store<u32>(record, 1, CHILDREN);
      owner = newNode();
      record = node(owner);
      room = MAX_RUN;
      store<u32>(record, id, FIRST);
      store<u32>(record, depth + k, START);
    }
    room--;
    const at = block(id);
    store<u32>(at, owner);
    store<u32>(at, above, 4);
    copyKey(at + KEY, hashes + k * width);
    if (k >= grown) {
      store<u32>(record, id, LAST);
      setLength(record, MAX_RUN - room);
    } else {
      set(GROWN_TO, id);
    }
    above = id;
  }
  set(BLOCK_FREE, free);
  set(BLOCK_NEXT, fresh);
  add(BLOCKS, count);
  barrier(HEADER + FENCE);
  let id = above;
  for (let k = count; k > 0; k--) {
    if (k % BATCH == 0 || k == count) {
      const batch = k % BATCH || BATCH;
      set(WARMED, warm(hashes + (k - batch) * width, batch));
    }
    const other = put(hashes + (k - 1) * width, id);
    if (other) {
      change();
      discard(above, id, tail);
      publish();
      return other < 0 ? other : CONFLICT;
    }
    id = previous(block(id));
  }
  return above;
}

// Takes back the blocks from `last` up to `tail`; those up from `refused` never entered the table. A part of a change.
function discard(last: u32, refused: u32, tail: u32): void {
  let entered = true;
  while (last != tail) {
    const record = block(last);
    const above = previous(record);
    const owner = nodeOf(record);
    if (last == refused) entered = false;
    if (entered) erase(last);
    if (load<u32>(node(owner), FIRST) == last) freeNode(owner);
    freeBlock(last);
    last = above;
  }
}

// Links what was appended after the walk's end, cutting the node in which the walk ended, so that a node ends at `last`.
function attach(last: u32): bool {
  const tail = get(WALK_TAIL);
  const under = get(WALK_NODE);
  const offset = get(WALK_OFFSET);
  if (offset < lengthOf(node(under)) && !cut(under, offset, tail)) {
    discard(last, 0, tail);
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
