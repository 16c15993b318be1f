// Insertion and use. New blocks are written first, and what the table must have of them is entered, where no reader can
// reach them yet: their node has no holder, or ends before them. The change that readers must not see halfway, cutting,
// linking and holding, is short.
import { HEADER } from '../memory';
import { block, freeBlock, nodeOf, previous, reserveBlocks, writeBlock } from './blocks';
import {
  add,
  addHeld,
  BLOCK_FREE,
  BLOCK_NEXT,
  BLOCKS,
  barrier,
  change,
  FENCE,
  GROWN_BY,
  GROWN_TO,
  get,
  NO_MEMORY,
  ORPHAN,
  PENDING,
  publish,
  set,
  WALK_NODE,
  WALK_OFFSET,
  WALK_TAIL,
  WIDTH,
} from './header';
import { addEntry, entryLength, findEntry, setEntryLength } from './holders';
import {
  blockAt,
  CHILDREN,
  FIRST,
  freeNode,
  isDense,
  LAST,
  lengthOf,
  MAX_RUN,
  newNode,
  node,
  offsetOf,
  parentOf,
  reserveNodes,
  SHORT_RUN,
  START,
  setDense,
  setLength,
} from './nodes';
import { enterRun, firstPlace, MOST_PENDING, nextPlace, wait } from './pending';
import { refresh } from './recency';
import { cut, join, trim } from './shape';
import { erase } from './table';
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

// Writes new blocks behind the walk's end: into its node when that is a leaf that ends there and stays dense, or is so
// short or scattered already that a few more entries in the table cost less than a node; else into new nodes. Where ids
// are not consecutive, because blocks that were freed are used again, a new node starts, unless its run is short yet.
// Returns the last block's id.
function append(hashes: usize, count: u32, depth: u32): i32 {
  const width = get(WIDTH);
  const tail = get(WALK_TAIL);
  let free = get(BLOCK_FREE);
  let fresh = get(BLOCK_NEXT);
  let owner = get(WALK_NODE);
  let record = node(owner);
  let size = lengthOf(record);
  const leaf = owner != 0 && get(WALK_OFFSET) == size && load<u32>(record, CHILDREN) == 0;
  let dense = isDense(record);
  const follows = dense && (free || fresh) == tail + 1;
  const grows = leaf && (follows || (count < SHORT_RUN && (!dense || size < SHORT_RUN)));
  let room = grows ? MAX_RUN - size : 0;
  set(GROWN_BY, 0);
  add(PENDING, count);
  if (!reserveBlocks(count) || !reserveNodes(count / (free ? SHORT_RUN : MAX_RUN) + 2)) return abandon(count);
  if (grows && dense && !follows) {
    if (!enterRun(tail, size)) return abandon(count);
    change();
    setDense(record, false);
    publish();
    dense = false;
  }
  let above = tail;
  let grown: u32 = grows ? min(room, count) : 0;
  for (let k: u32 = 0; k < count; k++) {
    const reused = free != 0;
    const id = reused ? free : fresh++;
    if (reused) free = previous(block(id));
    if (id != above + 1 && room) {
      if (dense && (k < grown || size >= SHORT_RUN)) room = 0;
      else dense = false;
    }
    if (room == 0) {
      if (k < grown) grown = k;
      if (k > grown) close(record, above, size, dense, 1);
      owner = newNode();
      record = node(owner);
      store<u32>(record, id, FIRST);
      store<u32>(record, depth + k, START);
      room = MAX_RUN;
      size = 0;
      dense = true;
    }
    writeBlock(id, owner, above, hashes + k * width);
    room--;
    size++;
    above = id;
    if (k < grown) set(GROWN_TO, id);
  }
  set(GROWN_BY, grown);
  if (grown < count) close(record, above, size, dense, 0);
  set(BLOCK_FREE, free);
  set(BLOCK_NEXT, fresh);
  add(BLOCKS, count);
  barrier(HEADER + FENCE);
  if (enterNew(above, count, grown)) return above;
  change();
  discard(above, tail);
  publish();
  return NO_MEMORY;
}

function abandon(count: u32): i32 {
  add(PENDING, -(<i32>count));
  return NO_MEMORY;
}

function close(record: usize, last: u32, length: u32, dense: bool, children: u32): void {
  store<u32>(record, last, LAST);
  store<u32>(record, children, CHILDREN);
  setLength(record, length);
  setDense(record, dense);
}

// Enters of the new blocks up from `last` what the table must have, the last `grown` of them behind the node in which
// the walk ended; the others wait.
function enterNew(last: u32, count: u32, grown: u32): bool {
  const all = get(PENDING) > MOST_PENDING;
  for (let left = count - grown; left > 0; ) {
    const record = node(nodeOf(block(last)));
    const first = load<u32>(record, FIRST);
    const length = lengthOf(record);
    const waits = !all && isDense(record);
    if (waits ? !(wait(first, length) && enterRun(first, 1)) : !enterRun(last, length)) return false;
    left -= length;
    last = previous(block(first));
  }
  if (!grown) return true;
  const waits = !all && isDense(node(get(WALK_NODE)));
  return waits ? wait(last - grown + 1, grown) : enterRun(last, grown);
}

// Takes back the blocks from `last` up to `tail`.
function discard(last: u32, tail: u32): void {
  while (last != tail) {
    const record = block(last);
    const above = previous(record);
    const owner = nodeOf(record);
    erase(last);
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
