// The writer's walk down the tree. It compares at the last block of each run only: hashes are chained, so a block that
// agrees vouches for all before it. Where a run ends elsewhere it bisects, and there it checks its own step, because
// the tree will be cut at that place: what does not fit is a CONFLICT, not a wrong tree.
import { block, KEY, nodeOf, previous, sameKey } from './blocks';
import { CONFLICT, get, set, WALK_NODE, WALK_OFFSET, WALK_TAIL, WIDTH } from './header';
import { FIRST, LAST, lengthOf, node, offsetOf } from './nodes';
import { find } from './table';

/** Starts a walk at the root (0) or behind a block. */
export function startAt(id: u32): void {
  set(WALK_NODE, id ? nodeOf(block(id)) : 0);
  set(WALK_OFFSET, id ? offsetOf(id) + 1 : 0);
  set(WALK_TAIL, id);
}

/**
 * Follows `count` hashes as far as the index knows them. Returns how many, or CONFLICT. WALK_NODE, WALK_OFFSET and
 * WALK_TAIL then say where: the node, how many of its blocks belong to the path, and the path's last block.
 */
export function walk(hashes: usize, count: u32): i32 {
  const width = get(WIDTH);
  let id = get(WALK_NODE);
  let offset = get(WALK_OFFSET);
  let tail = get(WALK_TAIL);
  let done: u32 = 0;
  let status: i32 = 0;
  while (done < count) {
    let known: u32 = 0;
    if (offset == lengthOf(node(id))) {
      const next = find(hashes + done * width);
      if (!next) break;
      const record = block(next);
      if (previous(record) != tail || load<u32>(node(nodeOf(record)), FIRST) != next) {
        status = CONFLICT;
        break;
      }
      id = nodeOf(record);
      offset = 0;
      known = 1;
    }
    const length = lengthOf(node(id));
    const wanted = min(length - offset, count - done);
    const last = load<u32>(node(id), LAST);
    const final = hashes + (done + wanted - 1) * width;
    let reached: u32 = 0;
    if (wanted == length - offset && sameKey(block(last) + KEY, final)) {
      reached = wanted;
      tail = last;
    } else {
      // The first `low` blocks agree; the one at `high` does not, or lies behind the query's end.
      let low = known;
      let high = wanted == length - offset ? wanted - 1 : wanted;
      let found: u32 = 0;
      if (known) found = load<u32>(node(id), FIRST);
      for (let probe = high == wanted ? wanted - 1 : (low + high) >>> 1; low < high; probe = (low + high) >>> 1) {
        const at = find(hashes + (done + probe) * width);
        if (at && nodeOf(block(at)) == id) {
          low = probe + 1;
          found = at;
        } else {
          high = probe;
        }
      }
      reached = low;
      if (reached) {
        if (offsetOf(found) != offset + reached - 1) {
          status = CONFLICT;
          break;
        }
        tail = found;
      }
    }
    done += reached;
    offset += reached;
    if (offset < length) break;
  }
  set(WALK_NODE, id);
  set(WALK_OFFSET, offset);
  set(WALK_TAIL, tail);
  return status < 0 ? status : <i32>done;
}
