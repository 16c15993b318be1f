// Changes of the tree's shape: cutting a run in two, joining two again, trimming what nobody holds. Both parts of a
// cut stand together in the recency list, and only neighbours there are joined, so neither changes the order.
import { block, freeBlock, previous } from './blocks';
import {
  dropEntries,
  entriesOf,
  entryHolder,
  entryLength,
  findEntry,
  heldLength,
  holdersOf,
  initEntries,
  moveEntries,
  removeEntry,
  setEntry,
  setEntryLength,
} from './holders';
import {
  CHILDREN,
  FIRST,
  freeNode,
  isDense,
  LAST,
  lengthOf,
  MAX_RUN,
  NEWER,
  newNode,
  node,
  relabel,
  reserveNodes,
  SHORT_RUN,
  START,
  setDense,
  setLength,
  successor,
} from './nodes';
import { enterRun } from './pending';
import { linkBefore, unlink } from './recency';
import { erase } from './table';

/**
 * Cuts a node after its first `offset` blocks (neither none nor all), the last of which is `last`. Returns the id of
 * the upper part, 0 without memory; either part may keep the old id.
 */
export function cut(id: u32, offset: u32, last: u32): u32 {
  const old = node(id);
  const length = lengthOf(old);
  const holders = holdersOf(old);
  const upperIsNew = offset <= length >>> 1;
  let reaching: u32 = 0; // holders of the lower part
  let entry = entriesOf(old, holders);
  for (const end = entry + (holders << 2); entry < end; entry += 4) if (entryLength(entry) > offset) reaching++;
  if (!reserveNodes(1)) return 0;
  // The lower part starts a run now: a walk looks for it in the table.
  const next = successor(id, last);
  if (!enterRun(next, 1)) return 0;
  const fresh = newNode();
  const record = node(fresh);
  if (!initEntries(record, upperIsNew ? holders : reaching)) {
    freeNode(fresh);
    return 0;
  }
  setDense(record, isDense(old));
  let to = entriesOf(record, holdersOf(record));
  if (upperIsNew) {
    store<u32>(record, load<u32>(old, FIRST), FIRST);
    store<u32>(record, last, LAST);
    store<u32>(record, load<u32>(old, START), START);
    setLength(record, offset);
    store<u32>(record, 1, CHILDREN);
    relabel(last, offset, fresh);
    for (let k = holders; k > 0; k--, to += 4) {
      const from = entriesOf(old, holdersOf(old)) + ((k - 1) << 2);
      const held = entryLength(from);
      setEntry(to, entryHolder(from), min(held, offset));
      if (held > offset) setEntryLength(from, held - offset);
      else removeEntry(old, from);
    }
    store<u32>(old, next, FIRST);
    store<u32>(old, load<u32>(old, START) + offset, START);
    setLength(old, length - offset);
    linkBefore(fresh, load<u32>(old, NEWER));
    return fresh;
  }
  store<u32>(record, next, FIRST);
  store<u32>(record, load<u32>(old, LAST), LAST);
  store<u32>(record, load<u32>(old, START) + offset, START);
  setLength(record, length - offset);
  store<u32>(record, load<u32>(old, CHILDREN), CHILDREN);
  relabel(load<u32>(old, LAST), length - offset, fresh);
  entry = entriesOf(old, holders);
  for (const end = entry + (holders << 2); entry < end; entry += 4) {
    const held = entryLength(entry);
    if (held <= offset) continue;
    setEntry(to, entryHolder(entry), held - offset);
    setEntryLength(entry, offset);
    to += 4;
  }
  store<u32>(old, last, LAST);
  setLength(old, offset);
  store<u32>(old, 1, CHILDREN);
  linkBefore(fresh, id);
  return id;
}

// Joining compares two holder lists; beyond this many pairs the cut stays.
const MOST_PAIRS: u32 = 1024;

/** Joins a node and a child of it where they say together what they say apart. Returns the id of what stands there. */
export function join(parent: u32, child: u32): u32 {
  const upper = node(parent);
  const lower = node(child);
  const upperLength = lengthOf(upper);
  const lowerLength = lengthOf(lower);
  if (load<u32>(upper, CHILDREN) != 1 || load<u32>(lower, NEWER) != parent) return parent;
  if (upperLength + lowerLength > MAX_RUN || holdersOf(upper) * holdersOf(lower) > MOST_PAIRS) return parent;
  const dense = isDense(upper) && isDense(lower) && load<u32>(upper, LAST) + 1 == load<u32>(lower, FIRST);
  if (!dense && (isLongDense(upper) || isLongDense(lower))) return parent;
  const from = entriesOf(lower, holdersOf(lower));
  const end = from + (holdersOf(lower) << 2);
  for (let entry = from; entry < end; entry += 4) {
    const above = findEntry(upper, entryHolder(entry));
    if (!above || entryLength(above) != upperLength) return parent;
  }
  if (!dense && !(enterDense(upper) && enterDense(lower))) return parent;
  setDense(upper, dense);
  setDense(lower, dense);
  for (let entry = from; entry < end; entry += 4) {
    setEntryLength(findEntry(upper, entryHolder(entry)), upperLength + entryLength(entry));
  }
  dropEntries(lower);
  if (upperLength >= lowerLength) {
    relabel(load<u32>(lower, LAST), lowerLength, parent);
    store<u32>(upper, load<u32>(lower, LAST), LAST);
    setLength(upper, upperLength + lowerLength);
    store<u32>(upper, load<u32>(lower, CHILDREN), CHILDREN);
    unlink(child);
    freeNode(child);
    return parent;
  }
  relabel(load<u32>(upper, LAST), upperLength, child);
  store<u32>(lower, load<u32>(upper, FIRST), FIRST);
  store<u32>(lower, load<u32>(upper, START), START);
  setLength(lower, upperLength + lowerLength);
  moveEntries(upper, lower);
  unlink(parent);
  freeNode(parent);
  return child;
}

function isLongDense(record: usize): bool {
  return isDense(record) && lengthOf(record) >= SHORT_RUN;
}

// Of a run that is not dense the table has every block.
function enterDense(record: usize): bool {
  return !isDense(record) || enterRun(load<u32>(record, LAST), lengthOf(record));
}

/** Frees the end of a leaf that nobody holds, and of the leaves that this makes, `upwards` only then. */
export function trim(id: u32, upwards: bool): void {
  while (id) {
    const record = node(id);
    if (load<u32>(record, CHILDREN)) return;
    const held = heldLength(record);
    let last = load<u32>(record, LAST);
    for (let excess = lengthOf(record) - held; excess > 0; excess--) {
      const above = previous(block(last));
      erase(last);
      freeBlock(last);
      last = above;
    }
    if (held) {
      store<u32>(record, last, LAST);
      setLength(record, held);
      return;
    }
    unlink(id);
    freeNode(id);
    id = load<u32>(block(last));
    if (!id) return;
    store<u32>(node(id), load<u32>(node(id), CHILDREN) - 1, CHILDREN);
    if (!upwards) return;
  }
}
