// The header of an object table and the map of its memory. Memory is taken in areas of 512 KiB and never given back;
// each area serves one purpose for ever (AREAS says which), so a number that claims to be a cell can be checked, and
// whatever is freed is used again by the same kind of thing.
//
//   area 0   the core's own memory map, then what passes in and out of calls (WINDOW)
//   area 1   directory of the table of objects; area 2 that of the table of templates
//   others   cells (cells.ts) or segments of both tables (table.ts), as they are needed
import { ensure, HEADER, HEAP, get, set } from '../memory';

export { add, get, set } from '../memory';

// Fields, as byte offsets from HEADER.
export const SEED: usize = 0; // u64, random: nobody can choose keys that crowd one place
export const ID_BASE: usize = 8; // u64: the shard's number in the high bits of an id
export const AREA_COUNT: usize = 16;
export const CELL_FREE: usize = 20; // list of freed cells
export const CELL_FREE_COUNT: usize = 24;
export const CELL_NEXT: usize = 28; // first cell that was never used, and the end of its area
export const CELL_END: usize = 32;
export const CELLS_USED: usize = 36;
export const SEGMENT_NEXT: usize = 40; // first segment that was never used, and how many its area has left
export const SEGMENTS_LEFT: usize = 44;
export const LAST_TEMPLATE: usize = 48; // the one that the last key had
export const CURSOR: usize = 52; // where a scan goes on
export const WARMED: usize = 56; // takes what was loaded ahead of its use, so that no load is optimized away
export const OBJECTS: usize = 64; // a table's header: directory u32, bits of its index u32, entries u32
export const TEMPLATES: usize = 80;
export const LISTS: usize = 96; // oldest u32 and newest u32 of each list
export const ACC: usize = 192; // 64 bytes of scratch for XXH3
export const SECRET: usize = 256; // XXH3's secret for SEED, 192 bytes
export const RECENT: usize = 512; // 64 templates that keys had lately

export const LIST_COUNT: u32 = 8;

const AREA_BITS: u32 = 19;
export const AREA: u32 = 1 << AREA_BITS;
// The last area stays unused so that no end of a structure overflows 32 bits.
const MAX_AREAS: u32 = (1 << (32 - AREA_BITS)) - 1;
const GROW_MOST: u64 = 0x400_0000;

// What an area is for.
const OTHER: u8 = 1;
export const CELLS: u8 = 2;
export const SEGMENTS: u8 = 3;

/** Keys of one call, and bytes of them. */
export const BATCH: usize = 1024;
export const TEXT_BYTES: usize = 0x20000;

// The window. Offsets have one element more than there are keys; a routed text is that of one shard after the other.
export const AREAS: usize = HEAP;
export const RESULTS: usize = AREAS + 0x2000;
export const OFFSETS: usize = RESULTS + BATCH * 8;
export const ORDER: usize = OFFSETS + BATCH * 4 + 16;
export const MOVES: usize = ORDER + BATCH * 4;
export const PROBES: usize = MOVES + 0x8000;
export const TEXT: usize = PROBES + 0x2000;
export const ROUTED: usize = TEXT + TEXT_BYTES + 128;
export const ROUTED_OFFSETS: usize = ROUTED + TEXT_BYTES + 128;
export const ROUTED_STARTS: usize = ROUTED_OFFSETS + BATCH * 4 + 16;

/** A fresh area, all zeros; 0 when the memory cannot grow. */
export function takeArea(kind: u8): usize {
  const area = get(AREA_COUNT);
  if (area == MAX_AREAS) return 0;
  const end = <u64>(area + 1) << AREA_BITS;
  if (end > (<u64>(<u32>memory.size())) << 16) {
    // Growing often makes the engine collect garbage, what is not used yet costs nothing: up to an eighth more, or 64 MiB.
    if (!ensure(end + min(end >>> 3, GROW_MOST)) && !ensure(end)) return 0;
  }
  set(AREA_COUNT, area + 1);
  store<u8>(AREAS + area, kind);
  return <usize>area << AREA_BITS;
}

// @ts-ignore: decorator
@inline
export function areaKind(address: usize): u8 {
  return load<u8>(AREAS + (address >>> AREA_BITS));
}

/** Takes the first area, in which this header lies. */
export function initHeader(seed: u64, idBase: u64): bool {
  store<u64>(HEADER + SEED, seed);
  store<u64>(HEADER + ID_BASE, idBase);
  for (let k: u32 = 0; k < <u32>BATCH; k++) store<u32>(ORDER + (k << 2), k);
  return ensure(AREA) && !takeArea(OTHER);
}

/** The area of a directory. */
export function takeDirectory(): usize {
  return takeArea(OTHER);
}
