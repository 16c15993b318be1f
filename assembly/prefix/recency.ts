// The recency list: every node, least recently used first. A use moves the nodes of its path to the newest end, leaf
// first and root last, so by construction a node always stands before its ancestors: read from the oldest end the list
// is a valid order of eviction, read from the newest end a valid order to rebuild the tree in.
import { get, NEWEST, OLDEST, set } from './header';
import { NEWER, node, OLDER } from './nodes';

export function unlink(id: u32): void {
  const record = node(id);
  const older = load<u32>(record, OLDER);
  const newer = load<u32>(record, NEWER);
  if (older) store<u32>(node(older), newer, NEWER);
  else set(OLDEST, newer);
  if (newer) store<u32>(node(newer), older, OLDER);
  else set(NEWEST, older);
  store<u32>(record, 0, OLDER);
  store<u32>(record, 0, NEWER);
}

/** Links a node that is not in the list as the one just older than `newer` (0: as the newest). */
export function linkBefore(id: u32, newer: u32): void {
  const record = node(id);
  const older = newer ? load<u32>(node(newer), OLDER) : get(NEWEST);
  store<u32>(record, older, OLDER);
  store<u32>(record, newer, NEWER);
  if (older) store<u32>(node(older), id, NEWER);
  else set(OLDEST, id);
  if (newer) store<u32>(node(newer), id, OLDER);
  else set(NEWEST, id);
}

/** Makes a node, linked or not, the newest. */
export function refresh(id: u32): void {
  if (get(NEWEST) == id) return;
  const record = node(id);
  if (load<u32>(record, OLDER) | load<u32>(record, NEWER)) unlink(id);
  else if (get(OLDEST) == id) return;
  linkBefore(id, 0);
}
