// Objects. A record is one cell of two cache lines; the first has all that a search and a lookup need.
//
//    1  u8   form of the key (probe.ts)       64  u32  next older object of its list
//    2  u8   state                            68  u32  next newer one
//    3  u8   flags                            72  f64  stamp: when it was linked or used last
//    4  u32  generation << 8 | list + 1       80  f64  size
//    8  u32  template of the key              88  u64  checksum
//   12  u32  group                            96  f64  pinned until
//   16  f64  protected by lookups until      104  u32  disk
//   24  f64  protected by reads until        112  f64  handle of the first replica
//   32       tail of the key, 32 bytes,      120  u32  owner
//            or its text u32, length u32     124  u32  extra
//
// The wrapper reads and writes size, times, owner and the like itself (src/core/objects-records.ts).
import {
  cellAt,
  freeCell,
  freeText,
  generationOf,
  getText,
  newText,
  OBJECT,
  putText,
  reserve,
  sameText,
  takeCell,
  textCells,
} from './cells';
import { HEADER } from '../memory';
import { ID_BASE, OBJECTS } from './header';
import { unlink } from './lists';
import { encode, FORM, HEX, hashKey, KEY, LENGTH, OWN_TEXT, TAIL, TAIL_BYTES, TEMPLATE_OF } from './probe';
import { enter, erase, NONE, room, search, segmentOf, slotAt } from './table';
import { dropTemplate, templateCells, templateHash, templateRoom, tenantOf, useTemplate, writeText } from './templates';

const RECORD_FORM: usize = 1;
const STATE: usize = 2;
const TEMPLATE: usize = 8;
const RECORD_TAIL: usize = 32;

/** No object could be made, and why not. */
export const EXISTS: f64 = -1;
export const FULL: f64 = -2;

const COMPLETE: u8 = 1;
const CELL_BITS: u64 = 25;

// @ts-ignore: decorator
@inline
export function isComplete(at: usize): bool {
  return load<u8>(at, STATE) == COMPLETE;
}

/** Id of an object: shard, generation of its cell, cell. */
// @ts-ignore: decorator
@inline
export function idOf(cell: u32): f64 {
  const generation = <u64>generationOf(cellAt(cell));
  return <f64>(load<u64>(HEADER + ID_BASE) | (generation << CELL_BITS) | cell);
}

// @ts-ignore: decorator
@inline
export function hasKey(cell: u32, probe: usize): bool {
  const at = cellAt(cell);
  const form = load<u32>(probe, FORM);
  if (load<u32>(at, TEMPLATE) != load<u32>(probe, TEMPLATE_OF) || load<u8>(at, RECORD_FORM) != form) return false;
  if (form == OWN_TEXT) return hasText(at, probe);
  const low = v128.xor(v128.load(at, RECORD_TAIL), v128.load(probe, TAIL));
  const high = v128.xor(v128.load(at, RECORD_TAIL + 16), v128.load(probe, TAIL + 16));
  return !v128.any_true(v128.or(low, high));
}

function hasText(at: usize, probe: usize): bool {
  const length = load<u32>(probe, LENGTH);
  return (
    load<u32>(at, RECORD_TAIL + 4) == length && sameText(load<u32>(at, RECORD_TAIL), 0, load<u32>(probe, KEY), length)
  );
}

/** The object with a probe's key, or 0. */
export function find(probe: usize): u32 {
  if (!load<u32>(probe, TEMPLATE_OF)) return 0;
  const h = load<u32>(probe);
  const segment = segmentOf(OBJECTS, h);
  for (let slot = search(segment, h, h); slot != NONE; slot = search(segment, slot + 1, h)) {
    const cell = load<u32>(slotAt(segment, slot));
    if (hasKey(cell, probe)) return cell;
  }
  return 0;
}

/** Makes an object with a probe's key, which none has: its id, or FULL and nothing has changed. */
export function insert(probe: usize, tenant: u32): f64 {
  const h = load<u32>(probe);
  const form = load<u32>(probe, FORM);
  const length: usize = load<u32>(probe, LENGTH);
  const cells = 1 + templateCells(probe) + (form == OWN_TEXT ? textCells(length) : 0);
  if (!reserve(cells) || !room(OBJECTS, h) || !templateRoom(probe)) return FULL;
  const template = useTemplate(probe, tenant);
  const cell = takeCell(OBJECT);
  const at = cellAt(cell);
  store<u8>(at, <u8>form, RECORD_FORM);
  store<u32>(at, template, TEMPLATE);
  if (form == OWN_TEXT) {
    const text = newText(length);
    store<u32>(at, text, RECORD_TAIL);
    store<u32>(at, <u32>length, RECORD_TAIL + 4);
    putText(text, 0, load<u32>(probe, KEY), length);
  } else {
    v128.store(at, v128.load(probe, TAIL), RECORD_TAIL);
    v128.store(at, v128.load(probe, TAIL + 16), RECORD_TAIL + 16);
  }
  enter(OBJECTS, h, cell);
  return idOf(cell);
}

/** Removes an object. `window` has room for its key. */
export function remove(cell: u32, probe: usize, window: usize): void {
  const at = cellAt(cell);
  const form: u32 = load<u8>(at, RECORD_FORM);
  const template = load<u32>(at, TEMPLATE);
  // The table wants the hash, which is that of the key's parts.
  store<u32>(probe, form, FORM);
  if (form == OWN_TEXT) {
    store<u32>(probe, <u32>window, KEY);
    store<u32>(probe, <u32>writeKey(cell, window), LENGTH);
  } else {
    memory.copy(probe + TAIL, at + RECORD_TAIL, 32);
  }
  erase(OBJECTS, <u32>hashKey(probe, templateHash(template)), cell);
  unlink(cell);
  if (form == OWN_TEXT) freeText(load<u32>(at, RECORD_TAIL));
  dropTemplate(template);
  freeCell(cell);
}

export function tenantOfObject(cell: u32): u32 {
  return tenantOf(load<u32>(cellAt(cell), TEMPLATE));
}

/** Writes the key of an object, up to 64 bytes of anything behind it; its length. */
export function writeKey(cell: u32, to: usize): usize {
  const at = cellAt(cell);
  const form: u32 = load<u8>(at, RECORD_FORM);
  if (form == OWN_TEXT) {
    const length: usize = load<u32>(at, RECORD_TAIL + 4);
    getText(load<u32>(at, RECORD_TAIL), 0, to, length);
    return length;
  }
  const template = load<u32>(at, TEMPLATE);
  let length = writeText(template, false, to);
  const tail: usize = form & TAIL_BYTES;
  if (form & HEX) encode(at + RECORD_TAIL, to + length);
  else memory.copy(to + length, at + RECORD_TAIL, tail);
  length += form & HEX ? tail << 1 : tail;
  return length + writeText(template, true, to + length);
}
