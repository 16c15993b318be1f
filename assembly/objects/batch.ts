// Batches of keys from the window. A search waits for memory twice, for its slot and for its object; so keys are worked
// on in groups, and the loads of a whole group are under way before the first is waited for.
import { cellAt } from './cells';
import { OBJECTS, OFFSETS, ORDER, PROBES, RESULTS, set, TEXT, WARMED } from './header';
import { touch, warmLinks } from './lists';
import { CANDIDATE, cut, hashKey, PROBE, TEMPLATE_HASH, TEMPLATE_OF } from './probe';
import { EXISTS, find, hasKey, idOf, insert, isComplete } from './records';
import { NONE, search, segmentOf, slotAt } from './table';
import { resolve } from './templates';

const GROUP: u32 = 32;

// What a lookup does with an object that is complete.
const FIND: u32 = 0; // nothing, and any object will do
const LOOK: u32 = 1; // protects it from removal
const READ: u32 = 2; // the same, and counts as use

const LOOKUP_UNTIL: usize = 16;
const LEASE_UNTIL: usize = 24;

/** Takes a key of the window apart and hashes it. */
// @ts-ignore: decorator
@inline
function prepare(k: u32, tenant: u32, probe: usize): void {
  const offset = OFFSETS + (<usize>k << 2);
  const from: usize = load<u32>(offset);
  cut(TEXT + from, <usize>load<u32>(offset, 4) - from, probe);
  resolve(probe, tenant);
  store<u64>(probe, hashKey(probe, load<u64>(probe, TEMPLATE_HASH)));
}

/** Prepares a group's probes and loads their slots; returns what it loaded, all mixed together. */
function prepareGroup(first: u32, size: u32, tenant: u32): u32 {
  let seen: u32 = 0;
  for (let k: u32 = 0, probe = PROBES; k < size; k++, probe += PROBE) {
    prepare(first + k, tenant, probe);
    const h = load<u32>(probe);
    seen |= load<u32>(slotAt(segmentOf(OBJECTS, h), h));
  }
  return seen;
}

/** Notes for each probe of a group the first object with its hash, and loads it; returns what it loaded. */
function findGroup(size: u32, mode: u32): u32 {
  let seen: u32 = 0;
  for (let k: u32 = 0, probe = PROBES; k < size; k++, probe += PROBE) {
    const h = load<u32>(probe);
    const segment = segmentOf(OBJECTS, h);
    const slot = load<u32>(probe, TEMPLATE_OF) ? search(segment, h, h) : NONE;
    const cell = slot == NONE ? 0 : load<u32>(slotAt(segment, slot));
    store<u32>(probe, cell, CANDIDATE);
    if (cell) seen |= load<u8>(cellAt(cell));
    if (cell && mode == READ) seen |= warmLinks(cell);
  }
  return seen;
}

/**
 * Looks `count` keys up; how many objects were found that are complete (or at all, to FIND). Results are ids, 0 for no
 * object, the negative of its id for one that is not complete. Protection lasts `until` or longer; that of a lookup is
 * not renewed where an earlier one ends after `endedBy`. The use of a key is stamped with `stamp` and its place in the
 * order.
 */
export function lookup(count: u32, tenant: u32, mode: u32, until: f64, endedBy: f64, stamp: f64): u32 {
  let found: u32 = 0;
  for (let first: u32 = 0; first < count; first += GROUP) {
    const size = min(GROUP, count - first);
    set(WARMED, prepareGroup(first, size, tenant) | findGroup(size, mode));
    for (let k: u32 = 0, probe = PROBES; k < size; k++, probe += PROBE) {
      let cell = load<u32>(probe, CANDIDATE);
      if (cell && !hasKey(cell, probe)) cell = find(probe);
      let id: f64 = 0;
      if (cell) {
        id = idOf(cell);
        const at = cellAt(cell);
        if (mode == FIND || isComplete(at)) {
          found++;
          if (mode == LOOK) {
            const earlier = load<f64>(at, LOOKUP_UNTIL);
            if (earlier <= endedBy) store<f64>(at, max(earlier, until), LOOKUP_UNTIL);
          } else if (mode == READ) {
            store<f64>(at, max(load<f64>(at, LEASE_UNTIL), until), LEASE_UNTIL);
            touch(cell, stamp + <f64>load<u32>(ORDER + (<usize>(first + k) << 2)));
          }
        } else {
          id = -id;
        }
      }
      store<f64>(RESULTS + (<usize>(first + k) << 3), id);
    }
  }
  return found;
}

/** Makes objects with these keys; how many. Results are ids, EXISTS or FULL. */
export function insertMany(count: u32, tenant: u32): u32 {
  let made: u32 = 0;
  for (let first: u32 = 0; first < count; first += GROUP) {
    const size = min(GROUP, count - first);
    set(WARMED, prepareGroup(first, size, tenant));
    for (let k: u32 = 0, probe = PROBES; k < size; k++, probe += PROBE) {
      // A key before it may have brought its template.
      if (!load<u32>(probe, TEMPLATE_OF)) resolve(probe, tenant);
      const id = find(probe) ? EXISTS : insert(probe, tenant);
      made += <u32>(id > 0);
      store<f64>(RESULTS + (<usize>(first + k) << 3), id);
    }
  }
  return made;
}
