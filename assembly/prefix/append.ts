// Writes the blocks of an insertion that the index does not have yet, and enters what the table must have of them, where
// no reader can reach them: their node has no holder, or ends before them.
import { HEADER } from '../memory';
import { block, freeBlock, nodeOf, previous, reserveBlocks, writeBlock } from './blocks';
import {
  add,
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
  PENDING,
  publish,
  set,
  WALK_NODE,
  WALK_OFFSET,
  WALK_TAIL,
  WIDTH,
} from './header';
import {
  CHILDREN,
  FIRST,
  freeNode,
  isDense,
  LAST,
  lengthOf,
  MAX_RUN,
  newNode,
  node,
  reserveNodes,
  SHORT_RUN,
  START,
  setDense,
  setLength,
} from './nodes';
import { enterAll, enterRun, wait } from './pending';
import { erase } from './table';

/**
 * Writes `count` new blocks behind the walk's end: into its node when that is a leaf that ends there and stays dense, or
 * when these are few and it is short or not dense; else into new nodes, which start at `depth`. Where ids are not
 * consecutive, because freed ones are used again, a new node starts, unless the run is short yet: then it is not dense.
 * Returns the last block's id, or NO_MEMORY and has changed nothing.
 */
export function append(hashes: usize, count: u32, depth: u32): i32 {
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
  const nodes = count / (free ? SHORT_RUN : MAX_RUN) + 2;
  if (!reserveBlocks(count) || !reserveNodes(nodes)) {
    // The table may take less than what is kept free for it.
    enterAll();
    if (!reserveBlocks(count) || !reserveNodes(nodes)) return abandon(count);
  }
  if (grows && dense && !follows) {
    if (!scatter(record)) return abandon(count);
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

// Makes a dense run one that is not.
function scatter(record: usize): bool {
  if (!enterRun(load<u32>(record, LAST), lengthOf(record))) return false;
  change();
  setDense(record, false);
  publish();
  return true;
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
  for (let left = count - grown; left > 0; ) {
    const record = node(nodeOf(block(last)));
    const first = load<u32>(record, FIRST);
    const length = lengthOf(record);
    const waits = isDense(record) && wait(first, length);
    if (!(waits ? enterRun(first, 1) : enterRun(last, length))) return false;
    left -= length;
    last = previous(block(first));
  }
  if (!grown) return true;
  return (isDense(node(get(WALK_NODE))) && wait(last - grown + 1, grown)) || enterRun(last, grown);
}

/** Takes back the blocks from `last` up to `tail`. A part of a change. */
export function discard(last: u32, tail: u32): void {
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
