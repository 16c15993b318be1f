// The object table: what a metadata service knows of its objects, by key. One instance is one shard of a table; what it
// is told of the others is its number, for the ids it gives, and which shard a key belongs to (route.ts).
// docs/objects.md has the drawing.
import { makeSecret } from '../hash/xxh3';
import { HEADER } from '../memory';
import { cellAt, kindOf, OBJECT } from './cells';
import {
  AREA,
  AREA_COUNT,
  areaKind,
  CELLS,
  CELLS_USED,
  CURSOR,
  get,
  initHeader,
  OBJECTS,
  OFFSETS,
  ORDER,
  PROBES,
  RESULTS,
  ROUTED,
  ROUTED_OFFSETS,
  ROUTED_STARTS,
  SECRET,
  set,
  TEMPLATES,
  TEXT,
} from './header';
import { idOf, remove, writeKey } from './records';
import { entries, initTable } from './table';

export { lookup as objectsLookup, insertMany as objectsInsert } from './batch';
export { after as objectsAfter, link as objectsLink, touch as objectsTouch, unlink as objectsUnlink } from './lists';
export { tenantOfObject as objectsTenant } from './records';
export { route as objectsRoute } from './route';

/** Makes an empty table of this memory. False when the memory is too small. */
export function objectsInit(seedLow: u32, seedHigh: u32, shard: u32): bool {
  const seed = (<u64>seedHigh << 32) | seedLow;
  makeSecret(seed, HEADER + SECRET);
  return initHeader(seed, <u64>shard << 47) && initTable(OBJECTS) && initTable(TEMPLATES);
}

/** Where the window's parts are, by number. */
export function objectsWindow(part: u32): usize {
  switch (part) {
    case 0:
      return OFFSETS;
    case 1:
      return ORDER;
    case 2:
      return RESULTS;
    case 3:
      return TEXT;
    case 4:
      return ROUTED;
    case 5:
      return ROUTED_OFFSETS;
  }
  return ROUTED_STARTS;
}

/** Removes an object. */
export function objectsRemove(cell: u32): void {
  remove(cell, PROBES, TEXT);
}

/** Writes an object's key where texts are; its length. */
export function objectsKey(cell: u32): usize {
  return writeKey(cell, TEXT);
}

/**
 * Writes the ids of the next objects from a cell on, at most `most` and within `look` cells; how many. Where to go on,
 * `objectsCursor` says: 0 at the end.
 */
export function objectsScan(from: u32, most: u32, look: u32): u32 {
  const end = (AREA >>> 7) * get(AREA_COUNT);
  let found: u32 = 0;
  let cell = from;
  while (cell < end && found < most && look > 0) {
    if (areaKind(cellAt(cell)) != CELLS) {
      cell = ((cell / (AREA >>> 7)) + 1) * (AREA >>> 7);
      continue;
    }
    if (kindOf(cellAt(cell)) == OBJECT) {
      store<f64>(RESULTS + (<usize>found << 3), idOf(cell));
      found++;
    }
    cell++;
    look--;
  }
  set(CURSOR, cell < end ? cell : 0);
  return found;
}

export function objectsCursor(): u32 {
  return get(CURSOR);
}

/** Entries of a table: 0 objects, 1 templates. Cells in use: 2. Areas taken: 3. */
export function objectsFigure(which: u32): u32 {
  if (which == 0) return entries(OBJECTS);
  if (which == 1) return entries(TEMPLATES);
  return which == 2 ? get(CELLS_USED) : get(AREA_COUNT);
}
