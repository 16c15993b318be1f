// Recency: eight doubly linked lists of objects, each in the order in which its objects were linked or last used, the
// oldest first. The stamps, which the wrapper counts up over all shards, rise along each list: that is what merges the
// lists of several shards into one order.
import { HEADER } from '../memory';
import { cellAt, isCell, kindOf, OBJECT } from './cells';
import { LISTS } from './header';

const LIST: usize = 4;
const OLDER: usize = 64;
const NEWER: usize = 68;
const STAMP: usize = 72;

// @ts-ignore: decorator
@inline
function ends(list: u32): usize {
  return HEADER + LISTS + (<usize>list << 3);
}

/** Puts an object that is in no list at the newest end of one. */
export function link(cell: u32, list: u32, stamp: f64): void {
  const at = cellAt(cell);
  const end = ends(list);
  const newest = load<u32>(end, 4);
  store<u8>(at, <u8>(list + 1), LIST);
  store<f64>(at, stamp, STAMP);
  store<u32>(at, newest, OLDER);
  store<u32>(at, 0, NEWER);
  if (newest) store<u32>(cellAt(newest), cell, NEWER);
  else store<u32>(end, cell);
  store<u32>(end, cell, 4);
}

/** Takes an object out of the list that it is in, if any. Returns that list + 1, or 0. */
export function unlink(cell: u32): u32 {
  const at = cellAt(cell);
  const list: u32 = load<u8>(at, LIST);
  if (!list) return 0;
  const end = ends(list - 1);
  const older = load<u32>(at, OLDER);
  const newer = load<u32>(at, NEWER);
  if (older) store<u32>(cellAt(older), newer, NEWER);
  else store<u32>(end, newer);
  if (newer) store<u32>(cellAt(newer), older, OLDER);
  else store<u32>(end, older, 4);
  store<u8>(at, 0, LIST);
  return list;
}

/** Moves an object to the newest end of the list that it is in. False when it is in none. */
// @ts-ignore: decorator
@inline
export function touch(cell: u32, stamp: f64): bool {
  const list = unlink(cell);
  if (list) link(cell, list - 1, stamp);
  return list != 0;
}

/** Brings the neighbours that `touch` will write into the cache. */
// @ts-ignore: decorator
@inline
export function warmLinks(cell: u32): u32 {
  return load<u32>(cellAt(cell), OLDER);
}

/**
 * The first object of a list whose stamp is above `stamp`, or 0. `near` is where it may be found: taken if it follows
 * from there, otherwise the search begins at the oldest.
 */
export function after(list: u32, stamp: f64, near: u32): u32 {
  let cell = near && isBehind(list, near, stamp) ? near : load<u32>(ends(list));
  while (cell && load<f64>(cellAt(cell), STAMP) <= stamp) cell = load<u32>(cellAt(cell), NEWER);
  return cell;
}

// Whether the search may begin at this cell: it is of the list, and what is older than it is not above the stamp.
function isBehind(list: u32, cell: u32, stamp: f64): bool {
  const at = cellAt(cell);
  if (!isCell(cell) || kindOf(at) != OBJECT || load<u8>(at, LIST) != list + 1) return false;
  const older = load<u32>(at, OLDER);
  return !older || load<f64>(cellAt(older), STAMP) <= stamp;
}
