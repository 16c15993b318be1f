// Cells of 128 bytes, two cache lines: an object, a template or a piece of a text that fits neither. One kind of cell
// for all, so that what one kind gives back any other can use. A cell is known by its number, its address / 128, 25
// bits.
//
//   0  u8   what it is
//   4  u32  generation << 8 | what the cell's kind makes of the low byte; outlives the cell's use
//   8  u32  free: next free cell; text: next cell of the text
//  12       text: 116 bytes of it
import {
  AREA,
  add,
  areaKind,
  CELL_END,
  CELL_FREE,
  CELL_FREE_COUNT,
  CELL_NEXT,
  CELLS,
  CELLS_USED,
  get,
  set,
  takeArea,
} from './header';

export const CELL: u32 = 128;
const FREE: u8 = 0;
const TEXT: u8 = 1;
export const TEMPLATE: u8 = 2;
export const OBJECT: u8 = 3;

const GENERATION: usize = 4;
const NEXT: usize = 8;
const PAYLOAD: usize = 12;
const PIECE: usize = <usize>CELL - PAYLOAD;

/** 22 bits, so that an id is a safe integer. */
const GENERATION_MASK: u32 = (1 << 22) - 1;

// @ts-ignore: decorator
@inline
export function cellAt(cell: u32): usize {
  return (<usize>cell) << 7;
}

// @ts-ignore: decorator
@inline
export function kindOf(at: usize): u8 {
  return load<u8>(at);
}

// @ts-ignore: decorator
@inline
export function generationOf(at: usize): u32 {
  return load<u32>(at, GENERATION) >>> 8;
}

/** Whether the number is that of a cell. */
export function isCell(cell: u32): bool {
  return areaKind(cellAt(cell)) == CELLS;
}

/** Makes `count` cells available. False without memory. */
export function reserve(count: u32): bool {
  while (get(CELL_FREE_COUNT) + (get(CELL_END) - get(CELL_NEXT)) < count) {
    const area = takeArea(CELLS);
    if (!area) return false;
    // The few that the last area still has are used like freed ones.
    for (let cell = get(CELL_NEXT); cell < get(CELL_END); cell++) push(cell);
    set(CELL_NEXT, <u32>area >>> 7);
    set(CELL_END, (<u32>area + AREA) >>> 7);
  }
  return true;
}

function push(cell: u32): void {
  store<u32>(cellAt(cell), get(CELL_FREE), NEXT);
  set(CELL_FREE, cell);
  add(CELL_FREE_COUNT, 1);
}

/** A reserved cell, all zeros but for its generation. */
export function takeCell(kind: u8): u32 {
  add(CELLS_USED, 1);
  let cell = get(CELL_FREE);
  if (cell) {
    const at = cellAt(cell);
    set(CELL_FREE, load<u32>(at, NEXT));
    add(CELL_FREE_COUNT, -1);
    memory.fill(at + NEXT, 0, <usize>CELL - NEXT);
    store<u32>(at, kind);
    return cell;
  }
  cell = get(CELL_NEXT);
  set(CELL_NEXT, cell + 1);
  store<u8>(cellAt(cell), kind);
  return cell;
}

/** Gives a cell back: whoever still has its number and generation does not mean what it is next. */
export function freeCell(cell: u32): void {
  const at = cellAt(cell);
  store<u8>(at, FREE);
  store<u32>(at, ((generationOf(at) + 1) & GENERATION_MASK) << 8, GENERATION);
  add(CELLS_USED, -1);
  push(cell);
}

/** Cells that a text of this length takes. */
// @ts-ignore: decorator
@inline
export function textCells(length: usize): u32 {
  return <u32>((length + PIECE - 1) / PIECE);
}

/** Reserved cells for a text of `length` bytes; the first. */
export function newText(length: usize): u32 {
  let first: u32 = 0;
  for (let k = textCells(length); k > 0; k--) {
    const cell = takeCell(TEXT);
    store<u32>(cellAt(cell), first, NEXT);
    first = cell;
  }
  return first;
}

export function freeText(first: u32): void {
  while (first) {
    const next = load<u32>(cellAt(first), NEXT);
    freeCell(first);
    first = next;
  }
}

// What passes over a part of a text does with each piece.
const PUT: u32 = 0;
const GET: u32 = 1;
const SAME: u32 = 2;

// Passes over `length` bytes from `offset`; `bytes` is where they come from, go to, or what they should be.
function pass(first: u32, offset: usize, bytes: usize, length: usize, what: u32): bool {
  for (; offset >= PIECE; offset -= PIECE) first = load<u32>(cellAt(first), NEXT);
  while (length) {
    const at = cellAt(first) + PAYLOAD + offset;
    const size = min(length, PIECE - offset);
    if (what == PUT) memory.copy(at, bytes, size);
    else if (what == GET) memory.copy(bytes, at, size);
    else if (!sameBytes(at, bytes, size)) return false;
    bytes += size;
    length -= size;
    offset = 0;
    first = load<u32>(cellAt(first), NEXT);
  }
  return true;
}

export function putText(first: u32, offset: usize, from: usize, length: usize): void {
  pass(first, offset, from, length, PUT);
}

export function getText(first: u32, offset: usize, to: usize, length: usize): void {
  pass(first, offset, to, length, GET);
}

export function sameText(first: u32, offset: usize, bytes: usize, length: usize): bool {
  return pass(first, offset, bytes, length, SAME);
}

export function sameBytes(a: usize, b: usize, length: usize): bool {
  let k: usize = 0;
  for (; k + 16 <= length; k += 16) {
    if (v128.any_true(v128.xor(v128.load(a + k), v128.load(b + k)))) return false;
  }
  if (length & 8) {
    if (load<u64>(a + k) != load<u64>(b + k)) return false;
    k += 8;
  }
  for (; k < length; k++) if (load<u8>(a + k) != load<u8>(b + k)) return false;
  return true;
}
