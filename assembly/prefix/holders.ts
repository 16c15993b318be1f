// Who holds a node: a list of entries {holder u16, length u16}: the holder has the first `length` blocks of the node.
// A holder is an instance (10 bits), a tier (2) and a group (4). Holders change along a run only at such lengths; a
// removal that would leave a hole in front of held blocks cuts the node instead, so an entry is exact.
//
// Up to three entries live in the node's record; more spill into a list of a power of two, addressed by the first.
import { get, inside, SPILL_FREE, set, take } from './header';
import { ENTRIES, HOLDERS } from './nodes';

const INLINE: u32 = 3;
const LEAST: u32 = 8;
const CAPACITY: usize = ENTRIES + 4;

// @ts-ignore: decorator
@inline
export function holdersOf(record: usize): u32 {
  return load<u16>(record, HOLDERS);
}

/** Address of a node's entries. */
// @ts-ignore: decorator
@inline
export function entriesOf(record: usize, count: u32): usize {
  return count <= INLINE ? record + ENTRIES : inside(load<u32>(record, ENTRIES), count << 2);
}

// @ts-ignore: decorator
@inline
export function entryHolder(entry: usize): u32 {
  return load<u16>(entry, 2);
}

// @ts-ignore: decorator
@inline
export function entryLength(entry: usize): u32 {
  return load<u16>(entry);
}

// @ts-ignore: decorator
@inline
export function setEntryLength(entry: usize, length: u32): void {
  store<u16>(entry, <u16>length);
}

/** Address of a holder's entry, 0 when it has none. */
export function findEntry(record: usize, holder: u32): usize {
  const count = holdersOf(record);
  let entry = entriesOf(record, count);
  const end = entry + (count << 2);
  for (; entry < end; entry += 4) if (entryHolder(entry) == holder) return entry;
  return 0;
}

/** The longest part of the node that anyone holds. */
export function heldLength(record: usize): u32 {
  const count = holdersOf(record);
  let entry = entriesOf(record, count);
  let longest: u32 = 0;
  for (const end = entry + (count << 2); entry < end; entry += 4) longest = max(longest, entryLength(entry));
  return longest;
}

// @ts-ignore: decorator
@inline
function freeList(capacity: u32): usize {
  return SPILL_FREE + (<usize>ctz(capacity / LEAST) << 2);
}

function freeSpill(list: usize, capacity: u32): void {
  store<u32>(list, get(freeList(capacity)));
  set(freeList(capacity), <u32>list);
}

function takeSpill(capacity: u32): usize {
  const list: usize = get(freeList(capacity));
  if (!list) return take(capacity << 2);
  set(freeList(capacity), load<u32>(list));
  return list;
}

/** Gives a node without holders room for `count` entries, which the caller fills. False without memory. */
export function initEntries(record: usize, count: u32): bool {
  if (count > INLINE) {
    let capacity = LEAST;
    while (capacity < count) capacity <<= 1;
    const list = takeSpill(capacity);
    if (!list) return false;
    store<u32>(record, list, ENTRIES);
    store<u32>(record, capacity, CAPACITY);
  }
  store<u16>(record, <u16>count, HOLDERS);
  return true;
}

// @ts-ignore: decorator
@inline
export function setEntry(entry: usize, holder: u32, length: u32): void {
  store<u32>(entry, (holder << 16) | length);
}

/** Adds the entry of a holder that has none. False without memory. */
export function addEntry(record: usize, holder: u32, length: u32): bool {
  const count = holdersOf(record);
  const capacity = count > INLINE ? load<u32>(record, CAPACITY) : INLINE;
  if (count == capacity) {
    const larger = count == INLINE ? LEAST : capacity << 1;
    const list = takeSpill(larger);
    if (!list) return false;
    const old = entriesOf(record, count);
    memory.copy(list, old, count << 2);
    if (count > INLINE) freeSpill(old, capacity);
    store<u32>(record, list, ENTRIES);
    store<u32>(record, larger, CAPACITY);
  }
  store<u16>(record, <u16>(count + 1), HOLDERS);
  setEntry(entriesOf(record, count + 1) + (count << 2), holder, length);
  return true;
}

/** Removes an entry; the last one takes its place. */
export function removeEntry(record: usize, entry: usize): void {
  const count = holdersOf(record) - 1;
  const list = entriesOf(record, count + 1);
  store<u32>(entry, load<u32>(list + (count << 2)));
  store<u16>(record, <u16>count, HOLDERS);
  if (count != INLINE) return;
  const capacity = load<u32>(record, CAPACITY);
  memory.copy(record + ENTRIES, list, INLINE << 2);
  freeSpill(list, capacity);
}

/** Takes all entries away. */
export function dropEntries(record: usize): void {
  const count = holdersOf(record);
  if (count > INLINE) freeSpill(load<u32>(record, ENTRIES), load<u32>(record, CAPACITY));
  store<u16>(record, 0, HOLDERS);
}

/** Moves all entries of one node to another that has none. */
export function moveEntries(from: usize, to: usize): void {
  store<u16>(to, load<u16>(from, HOLDERS), HOLDERS);
  memory.copy(to + ENTRIES, from + ENTRIES, INLINE << 2);
  store<u16>(from, 0, HOLDERS);
}
