// Expands a transfer program into 32-byte descriptors. src/core/layout-program.ts has reduced two layouts to entries:
// one contiguous run of bytes, repeated over at most two strided dimensions, for each pair of blocks. What is left is
// this loop, which also joins a run to the one before it where both sides touch.
//
//   entry, 18 f64 (whole numbers below 2^53; doubles because JavaScript writes them without BigInt)
//      0 source segment        1 destination segment   2 source offset         3 destination offset   4 run length
//      5 inner count           6 its source stride     7 its destination stride
//      8 outer count           9 its source stride    10 its destination stride
//     11 source block stride  12 destination block stride
//     13 source token stride  14 destination token stride
//     15 order: 0 blocks outermost, the strided dimensions form rows; 1 blocks innermost, so that their runs can touch
//     16 address of its pairs 17 pair count
//   pair, 4 u32: source block, destination block, first token within each
//   record, 32 bytes: source segment u32, destination segment u32, source offset u64, destination offset u64, length u64
//   cursor, 32 bytes: where the loops stand, so that a plan of any size passes through a small buffer
//      0 address of the entries u32   4 entry count u32   8 entry u32   12 pair u32   16 outer u64   24 inner u64

const ENTRY: usize = 144;
const PAIR: usize = 16;
const RECORD: usize = 32;

// @ts-ignore: decorator
@inline
function field(entry: usize, index: usize): u64 {
  return <u64>load<f64>(entry + (index << 3));
}

// `write` is a constant at both call sites: the counting copy has no stores and adds whole rows.
// @ts-ignore: decorator
@inline
function expand(write: bool, cursor: usize, out: usize, capacity: u64, kept: u64): u64 {
  const entries = <usize>load<u32>(cursor);
  const entryCount = load<u32>(cursor, 4);
  let at = load<u32>(cursor, 8);
  let pair = load<u32>(cursor, 12);
  let outer = load<u64>(cursor, 16);
  let inner = load<u64>(cursor, 24);

  // The last record stays open: what follows may touch it. Its start gives its length when it grows.
  let count = kept;
  let to = out + <usize>kept * RECORD;
  let openRoute: u64 = u64.MAX_VALUE;
  let openStart: u64 = 0;
  let sourceEnd: u64 = 0;
  let destinationEnd: u64 = 0;
  if (kept > 0) {
    openRoute = load<u64>(out);
    openStart = load<u64>(out, 8);
    sourceEnd = openStart + load<u64>(out, 24);
    destinationEnd = load<u64>(out, 16) + load<u64>(out, 24);
  }

  for (; at < entryCount; at++) {
    const entry = entries + <usize>at * ENTRY;
    const route = field(entry, 0) | (field(entry, 1) << 32);
    const sourceBase = field(entry, 2);
    const destinationBase = field(entry, 3);
    const length = field(entry, 4);
    const innerCount = field(entry, 5);
    const sourceInner = field(entry, 6);
    const destinationInner = field(entry, 7);
    const outerCount = field(entry, 8);
    const sourceOuter = field(entry, 9);
    const destinationOuter = field(entry, 10);
    const sourceBlock = field(entry, 11);
    const destinationBlock = field(entry, 12);
    const sourceToken = field(entry, 13);
    const destinationToken = field(entry, 14);
    const pairs = <usize>field(entry, 16);
    const pairCount = <u32>field(entry, 17);

    if (field(entry, 15) != 0) {
      for (; outer < outerCount; outer++) {
        for (; inner < innerCount; inner++) {
          const sourceRow = sourceBase + outer * sourceOuter + inner * sourceInner;
          const destinationRow = destinationBase + outer * destinationOuter + inner * destinationInner;
          for (; pair < pairCount; pair++) {
            const p = pairs + <usize>pair * PAIR;
            const source = sourceRow + <u64>load<u32>(p) * sourceBlock + <u64>load<u32>(p, 8) * sourceToken;
            const destination =
              destinationRow + <u64>load<u32>(p, 4) * destinationBlock + <u64>load<u32>(p, 12) * destinationToken;
            if (source == sourceEnd && destination == destinationEnd && route == openRoute) {
              if (write) store<u64>(to - 8, source + length - openStart);
            } else {
              if (write) {
                if (count == capacity) {
                  save(cursor, at, pair, outer, inner);
                  return count;
                }
                record(to, route, source, destination, length);
                to += RECORD;
              }
              openRoute = route;
              openStart = source;
              count++;
            }
            sourceEnd = source + length;
            destinationEnd = destination + length;
          }
          pair = 0;
        }
        inner = 0;
      }
    } else {
      // Runs of a row never touch each other (the program would have made them one), only the row before.
      for (; pair < pairCount; pair++) {
        const p = pairs + <usize>pair * PAIR;
        const sourceFirst = sourceBase + <u64>load<u32>(p) * sourceBlock + <u64>load<u32>(p, 8) * sourceToken;
        const destinationFirst =
          destinationBase + <u64>load<u32>(p, 4) * destinationBlock + <u64>load<u32>(p, 12) * destinationToken;
        for (; outer < outerCount; outer++) {
          let source = sourceFirst + outer * sourceOuter + inner * sourceInner;
          let destination = destinationFirst + outer * destinationOuter + inner * destinationInner;
          if (source == sourceEnd && destination == destinationEnd && route == openRoute) {
            sourceEnd += length;
            destinationEnd += length;
            if (write) store<u64>(to - 8, sourceEnd - openStart);
            source += sourceInner;
            destination += destinationInner;
            inner++;
          }
          let left = innerCount - inner;
          if (left == 0) {
            inner = 0;
            continue;
          }
          if (write) {
            const room = capacity - count;
            const end = to + <usize>(left < room ? left : room) * RECORD;
            for (; to < end; to += RECORD) {
              record(to, route, source, destination, length);
              source += sourceInner;
              destination += destinationInner;
            }
            if (left > room) {
              save(cursor, at, pair, outer, inner + room);
              return capacity;
            }
          } else {
            source += left * sourceInner;
            destination += left * destinationInner;
          }
          count += left;
          openRoute = route;
          openStart = source - sourceInner;
          sourceEnd = openStart + length;
          destinationEnd = destination - destinationInner + length;
          inner = 0;
        }
        outer = 0;
      }
      pair = 0;
    }
    outer = 0;
  }
  save(cursor, at, 0, 0, 0);
  return count;
}

// @ts-ignore: decorator
@inline
function record(to: usize, route: u64, source: u64, destination: u64, length: u64): void {
  store<u64>(to, route);
  store<u64>(to, source, 8);
  store<u64>(to, destination, 16);
  store<u64>(to, length, 24);
}

function save(cursor: usize, entry: u32, pair: u32, outer: u64, inner: u64): void {
  store<u32>(cursor, entry, 8);
  store<u32>(cursor, pair, 12);
  store<u64>(cursor, outer, 16);
  store<u64>(cursor, inner, 24);
}

/**
 * Number of descriptors from where `cursor` stands to the end of the program, and leaves it there. `open` is the last
 * record written, which is counted and may grow.
 */
export function layoutCount(cursor: usize, open: usize): f64 {
  return <f64>expand(false, cursor, open, 0, 1);
}

/**
 * Writes descriptors to `out` from where `cursor` stands until the program or `capacity` (at least 2) ends; returns how
 * many are there. With `keep` the last record of a full buffer is moved to the front first, where it may still grow.
 * The last one of a full buffer is not final, unless the cursor has reached the end of the entries.
 */
export function layoutWrite(cursor: usize, out: usize, capacity: u32, keep: u32): u32 {
  if (keep) memory.copy(out, out + (<usize>capacity - 1) * RECORD, RECORD);
  return <u32>expand(true, cursor, out, <u64>capacity, keep ? 1 : 0);
}
