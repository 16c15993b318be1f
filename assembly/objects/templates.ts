// Templates: the texts around the tails of keys, each kept once for a tenant and counted. A template is a cell:
//
//   2  u16  bytes of the text              16  u64  hash
//   8  u32  tenant                         24  u16  how many of the bytes come before the tail
//   12 u32  objects whose keys have it     28       the text, or where it begins if it has more than 100 bytes
import {
  CELL,
  cellAt,
  freeCell,
  freeText,
  getText,
  kindOf,
  newText,
  putText,
  sameBytes,
  sameText,
  TEMPLATE,
  takeCell,
  textCells,
} from './cells';
import { HEADER } from '../memory';
import { get, LAST_TEMPLATE, RECENT, set, TEMPLATES } from './header';
import { BEFORE, BEHIND, BEHIND_LENGTH, hashTemplate, KEY, PRIME, TEMPLATE_HASH, TEMPLATE_OF } from './probe';
import { enter, erase, NONE, room, search, segmentOf, slotAt } from './table';

const SIZE: usize = 2;
const TENANT: usize = 8;
const COUNT: usize = 12;
const HASH: usize = 16;
const SPLIT: usize = 24;
const TEXT: usize = 28;
const ROOM: usize = <usize>CELL - TEXT;

/** Tells a probe its template and that one's hash: the last key's, or one of those that keys had lately, or another. */
// @ts-ignore: decorator
@inline
export function resolve(probe: usize, tenant: u32): void {
  const last = get(LAST_TEMPLATE);
  if (last && isTemplate(cellAt(last), probe, tenant)) {
    know(probe, last);
  } else {
    resolveOther(probe, tenant);
  }
}

// @ts-ignore: decorator
@inline
function know(probe: usize, cell: u32): void {
  store<u32>(probe, cell, TEMPLATE_OF);
  store<u64>(probe, templateHash(cell), TEMPLATE_HASH);
}

function resolveOther(probe: usize, tenant: u32): void {
  const recent = recentPlace(probe);
  let cell = load<u32>(recent);
  if (!cell || !isTemplate(cellAt(cell), probe, tenant)) cell = findTemplate(probe, tenant);
  if (!cell) return;
  know(probe, cell);
  set(LAST_TEMPLATE, cell);
  store<u32>(recent, cell);
}

/** Where a template that was used lately is remembered: by a hash that costs less than the true one. */
function recentPlace(probe: usize): usize {
  const key: usize = load<u32>(probe, KEY);
  const before: usize = load<u32>(probe, BEFORE);
  let mixed: u64 = before;
  for (let k: usize = 0; k + 8 <= before; k += 8) mixed = (mixed ^ load<u64>(key + k)) * PRIME;
  if (before > 8) mixed = (mixed ^ load<u64>(key + before - 8)) * PRIME;
  return HEADER + RECENT + (<usize>(mixed >>> 58) << 2);
}

function findTemplate(probe: usize, tenant: u32): u32 {
  const hash = hashTemplate(probe, tenant);
  store<u64>(probe, hash, TEMPLATE_HASH);
  store<u32>(probe, 0, TEMPLATE_OF);
  const h = <u32>hash;
  const segment = segmentOf(TEMPLATES, h);
  for (let slot = search(segment, h, h); slot != NONE; slot = search(segment, slot + 1, h)) {
    const cell = load<u32>(slotAt(segment, slot));
    if (isTemplate(cellAt(cell), probe, tenant)) return cell;
  }
  return 0;
}

// Also for a cell that is no template any more.
function isTemplate(at: usize, probe: usize, tenant: u32): bool {
  const before: usize = load<u32>(probe, BEFORE);
  const behind: usize = load<u32>(probe, BEHIND_LENGTH);
  if (kindOf(at) != TEMPLATE || load<u32>(at, TENANT) != tenant) return false;
  if (<usize>load<u16>(at, SPLIT) != before || <usize>load<u16>(at, SIZE) != before + behind) return false;
  const key: usize = load<u32>(probe, KEY);
  if (before + behind <= ROOM) {
    return sameBytes(at + TEXT, key, before) && sameBytes(at + TEXT + before, load<u32>(probe, BEHIND), behind);
  }
  const text = load<u32>(at, TEXT);
  return sameText(text, 0, key, before) && sameText(text, before, load<u32>(probe, BEHIND), behind);
}

/** Cells that the probe's template will need. */
export function templateCells(probe: usize): u32 {
  if (load<u32>(probe, TEMPLATE_OF)) return 0;
  const size = <usize>load<u32>(probe, BEFORE) + load<u32>(probe, BEHIND_LENGTH);
  return 1 + (size <= ROOM ? 0 : textCells(size));
}

/** Makes room for the template in its table. False without memory. */
export function templateRoom(probe: usize): bool {
  return load<u32>(probe, TEMPLATE_OF) != 0 || room(TEMPLATES, <u32>load<u64>(probe, TEMPLATE_HASH));
}

/** The probe's template for one more object; cells and room are there. */
export function useTemplate(probe: usize, tenant: u32): u32 {
  let cell = load<u32>(probe, TEMPLATE_OF);
  if (!cell) {
    cell = takeCell(TEMPLATE);
    const at = cellAt(cell);
    const hash = load<u64>(probe, TEMPLATE_HASH);
    const key: usize = load<u32>(probe, KEY);
    const before: usize = load<u32>(probe, BEFORE);
    const behind: usize = load<u32>(probe, BEHIND_LENGTH);
    store<u16>(at, <u16>(before + behind), SIZE);
    store<u32>(at, tenant, TENANT);
    store<u64>(at, hash, HASH);
    store<u16>(at, <u16>before, SPLIT);
    if (before + behind <= ROOM) {
      memory.copy(at + TEXT, key, before);
      memory.copy(at + TEXT + before, load<u32>(probe, BEHIND), behind);
    } else {
      const text = newText(before + behind);
      store<u32>(at, text, TEXT);
      putText(text, 0, key, before);
      putText(text, before, load<u32>(probe, BEHIND), behind);
    }
    enter(TEMPLATES, <u32>hash, cell);
    set(LAST_TEMPLATE, cell);
  }
  store<u32>(cellAt(cell), load<u32>(cellAt(cell), COUNT) + 1, COUNT);
  return cell;
}

/** One object fewer has this template; the last one takes it along. */
export function dropTemplate(cell: u32): void {
  const at = cellAt(cell);
  const count = load<u32>(at, COUNT) - 1;
  store<u32>(at, count, COUNT);
  if (count) return;
  erase(TEMPLATES, <u32>load<u64>(at, HASH), cell);
  if (load<u16>(at, SIZE) > <u16>ROOM) freeText(load<u32>(at, TEXT));
  freeCell(cell);
}

// @ts-ignore: decorator
@inline
export function templateHash(cell: u32): u64 {
  return load<u64>(cellAt(cell), HASH);
}

export function tenantOf(cell: u32): u32 {
  return load<u32>(cellAt(cell), TENANT);
}

/** Writes the text before the tail, or that behind it; its length. */
export function writeText(cell: u32, behind: bool, to: usize): usize {
  const at = cellAt(cell);
  const split: usize = load<u16>(at, SPLIT);
  const size: usize = load<u16>(at, SIZE);
  const offset = behind ? split : 0;
  const length = behind ? size - split : split;
  if (size <= ROOM) memory.copy(to, at + TEXT + offset, length);
  else getText(load<u32>(at, TEXT), offset, to, length);
  return length;
}
