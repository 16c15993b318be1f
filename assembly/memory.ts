// The map of a core instance's linear memory. One instance owns one structure (an index, an allocator) or none (the
// scratch instance that hashes, maps layouts and computes checksums), so the map is fixed:
//
//   0x00000  never written: address 0 means "none"
//   0x00400  constants (data segments; the build checks that they end below 0x8000)
//   0x08000  CRC-64 tables, 32 KiB, filled on first use
//   0x10000  header of the structure that owns this memory, 4 KiB
//   0x11000  heap: nodes, tables, scratch
//
// No mutable globals anywhere in the core: in the shared build many instances run over one memory, so state that
// outlives a call lives at HEADER or above, and scratch is passed in by the caller.

export const CRC_TABLES: usize = 0x8000;
export const HEADER: usize = 0x10000;
export const HEAP: usize = 0x11000;

/** First free address of a fresh memory. */
export function heapBase(): usize {
  return HEAP;
}

/** End of the constants; the build refuses a core whose constants reach the tables. */
export function constantsEnd(): usize {
  return __heap_base;
}

/** Makes addresses below `end` usable, growing the memory where needed. False when it cannot grow that far. */
export function ensure(end: u64): bool {
  if (end > 0x1_0000_0000) return false;
  const have = (<u64>(<u32>memory.size())) << 16;
  if (end <= have) return true;
  const pages = <i32>((end - have + 0xffff) >>> 16);
  return memory.grow(pages) >= 0;
}

// Fields of the header, by their offset in it.

// @ts-ignore: decorator
@inline
export function get(field: usize): u32 {
  return load<u32>(HEADER + field);
}

// @ts-ignore: decorator
@inline
export function set(field: usize, value: u32): void {
  store<u32>(HEADER + field, value);
}

// @ts-ignore: decorator
@inline
export function add(field: usize, delta: i32): void {
  store<u32>(HEADER + field, load<u32>(HEADER + field) + delta);
}
