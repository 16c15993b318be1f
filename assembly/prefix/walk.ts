// The writer's walk down the tree. It compares at the last block of each run only: hashes are chained, so a block that
// agrees vouches for all before it. Where a run ends elsewhere it bisects. The tree will be cut there, so the step must
// be exact also for hashes that are no chain: the block before it agrees, the one behind does not.
import { block, KEY, nodeOf, previous, sameKey } from './blocks';
import { get, set, WALK_NODE, WALK_OFFSET, WALK_TAIL, WIDTH } from './header';
import { blockAt, FIRST, isDense, LAST, lengthOf, node, offsetOf } from './nodes';
import { findAfter, findIn } from './table';

/** Starts a walk at the root (0) or behind a block. */
export function startAt(id: u32): void {
  set(WALK_NODE, id ? nodeOf(block(id)) : 0);
  set(WALK_OFFSET, id ? offsetOf(id) + 1 : 0);
  set(WALK_TAIL, id);
}

/**
 * Follows `count` hashes as far as the index knows them. Returns how many. WALK_NODE, WALK_OFFSET and WALK_TAIL then say
 * where: the node, how many of its blocks belong to the path, and the path's last block.
 */
export function walk(hashes: usize, count: u32): u32 {
  const width = get(WIDTH);
  let id = get(WALK_NODE);
  let offset = get(WALK_OFFSET);
  let tail = get(WALK_TAIL);
  let done: u32 = 0;
  while (done < count) {
    let agreed: u32 = 0;
    if (offset == lengthOf(node(id))) {
      const next = findAfter(hashes + done * width, tail);
      if (!next) break;
      id = nodeOf(block(next));
      offset = 0;
      agreed = 1;
      tail = next;
    }
    const record = node(id);
    const left = lengthOf(record) - offset;
    const wanted = min(left, count - done);
    const last = load<u32>(record, LAST);
    const from = hashes + done * width;
    if (wanted == left && sameKey(block(last) + KEY, from + (wanted - 1) * width)) {
      agreed = wanted;
      tail = last;
    } else if (wanted > agreed) {
      // Where the query ends inside the run, its own end is where it most likely still agrees.
      const high = wanted == left ? wanted - 1 : wanted;
      set(WALK_TAIL, tail);
      agreed = bisect(id, offset, from, agreed, high, wanted == left ? (agreed + high) >>> 1 : high - 1);
      tail = get(WALK_TAIL);
    }
    done += agreed;
    offset += agreed;
    if (agreed < left) break;
  }
  set(WALK_NODE, id);
  set(WALK_OFFSET, offset);
  set(WALK_TAIL, tail);
  return done;
}

// How many of the hashes agree with a node's blocks from `offset` on: `low` do, the one at `high` does not or is not
// asked for. `probe` is looked at first. WALK_TAIL, the block before the one at `low`, moves with what is found.
function bisect(id: u32, offset: u32, hashes: usize, low: u32, high: u32, probe: u32): u32 {
  const width = get(WIDTH);
  const record = node(id);
  const dense = isDense(record);
  const first = load<u32>(record, FIRST) + offset;
  const end = high;
  let found: u32 = 0;
  for (; low < high; probe = (low + high) >>> 1) {
    const key = hashes + probe * width;
    const at = dense ? first + probe : findIn(key, id);
    if (at && (!dense || sameKey(block(at) + KEY, key))) {
      low = probe + 1;
      found = at;
    } else {
      high = probe;
    }
  }
  if (!found) return low;
  // The table told which node a key is in, not whether it is where it should be.
  if (!dense && offsetOf(found) != offset + low - 1) {
    low = compare(record, offset, hashes, end);
    if (!low) return 0;
    found = blockAt(record, offset + low - 1);
  }
  set(WALK_TAIL, found);
  return low;
}

// The same by looking at every block.
function compare(record: usize, offset: u32, hashes: usize, count: u32): u32 {
  const width = get(WIDTH);
  let id = blockAt(record, offset + count - 1);
  let agreed = count;
  for (let k = count; k > 0; k--) {
    if (!sameKey(block(id) + KEY, hashes + (k - 1) * width)) agreed = k - 1;
    id = previous(block(id));
  }
  return agreed;
}
